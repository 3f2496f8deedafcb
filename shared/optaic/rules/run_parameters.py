"""The names of the parameters that a run may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

START, END = "start", "end"  # the first and the last date that the run computes
DATA_DATE = "data_date"  # of a refresh the day that the data should reach; other flows read nothing later
REPIN_TYPES = "repin_types"  # whether the types of columns are determined again
PARAMETERS: Mapping[str, Sequence[str]] = {  # by flow
    "refresh": (START, END, DATA_DATE, REPIN_TYPES),
    "optimize": (DATA_DATE,),
    "monitoring": (DATA_DATE,),
    "training": (DATA_DATE,),
    "inference": (DATA_DATE,),
}
SWITCHES = (REPIN_TYPES,)  # true or false; the others are dates
RANGE = (START, END)  # parameters that limit the run to some dates
