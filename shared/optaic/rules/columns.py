"""The names of the columns that every table of data has, unless its configuration names others."""

from __future__ import annotations

DATE = "date"
ENTITY = "entity"
VALUE = "value"  # of a signal, and of what an expression computes
CONFIDENCE = "confidence"  # of a prediction
WEIGHT = "weight"  # of what an optimizer gives
KEYS = (DATE, ENTITY)  # they identify a row
PREDICTED = (VALUE, CONFIDENCE)  # what a model's output has besides the keys


def value_column(output: object) -> str:
    """Return the column with a signal's values, given the parameter `output` of its pipeline."""
    return output if isinstance(output, str) and output else VALUE
