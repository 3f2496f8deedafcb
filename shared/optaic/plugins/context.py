"""The context that user code receives: plain values and callbacks, no connection to any service."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from optaic.expression.macros import Macro
from optaic.plugins.errors import MissingInput
from optaic.plugins.operator import Operator
from optaic.plugins.selection import between
from optaic.rules.kinds import TIMEZONE

if TYPE_CHECKING:
    import polars as pl


class Mode(StrEnum):
    """The mode of a run: how much it computes."""

    INCREMENTAL = "incremental"
    FULL = "full"


@dataclass(frozen=True)
class DateRange:
    """Dates from `start` to `end`, both included; None is unbounded."""

    start: dt.date | None = None
    end: dt.date | None = None

    def __contains__(self, date: dt.date) -> bool:
        return (self.start is None or date >= self.start) and (self.end is None or date <= self.end)


@dataclass(frozen=True)
class ChangedDates:
    """The first and the last date in which inputs have changed; both None: in none."""

    start: dt.date | None = None
    end: dt.date | None = None


@dataclass(frozen=True)
class InputTable:
    """One upstream's data at the pinned version; read on first use, then kept."""

    role: str
    name: str  # the upstream instance's name
    reader: Callable[[], pl.DataFrame] = field(repr=False, compare=False)
    instance_id: str = ""
    version: int = 0
    digest: str = ""
    part_reader: Callable[[dt.date], pl.DataFrame] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The whole table."""
        return self.reader()

    def read_from(self, start: dt.date) -> pl.DataFrame:
        """Return the rows from a day on, which may cost less than the whole table.

        Raises:
            SchemaMismatch: its `date` is no day.
        """
        return between(self.frame, start, None) if self.part_reader is None else self.part_reader(start)


def _ignore_progress(fraction: float, message: str) -> None:
    del fraction, message


def _no_previous() -> pl.DataFrame | None:
    return None


def _ignore_report(name: str, value: object) -> None:
    del name, value


@dataclass(frozen=True)
class HeldTypes:
    """The types that columns have had in the last version, and keep."""

    types: Mapping[str, pl.DataType] = field(default_factory=dict)
    empty_reader: Callable[[], frozenset[str]] = field(default=frozenset, repr=False, compare=False)

    @cached_property
    def empty(self) -> frozenset[str]:
        """The columns without any value yet, read from the last version; the first value decides their type."""
        return self.empty_reader()


@dataclass(frozen=True)
class PipelineContext:
    """Everything that one run of a pipeline may depend on."""

    config: Mapping[str, object] = field(default_factory=dict)
    inputs: Mapping[str, tuple[InputTable, ...]] = field(default_factory=dict)  # by role
    mode: Mode = Mode.INCREMENTAL
    date_range: DateRange = DateRange()
    macros: Mapping[str, Macro] = field(default_factory=dict)  # what expressions may call, by upper-case name
    # Operators that expressions may call besides the language's own, by name.
    operators: Mapping[str, Operator] = field(default_factory=dict)
    timezone: str = TIMEZONE  # the dataset's: whose days the instants of a source have that says no zone
    data_date: dt.date | None = None  # the day that the data should reach, where a schedule gives one
    # Fraction 0 to 1 and a short message. It raises to stop the run: let that exception pass.
    progress: Callable[[float, str], None] = field(default=_ignore_progress, repr=False, compare=False)
    previous_reader: Callable[[], pl.DataFrame | None] = field(
        default=_no_previous, repr=False, compare=False
    )
    # What columns have to stay, in full mode too; none at first, after a change of what `Pipeline.shaped_by` names,
    # and where the run is to pin types again.
    held: HeldTypes = HeldTypes()
    # Whether the last version was made with other values of what `Pipeline.shaped_by` names.
    is_reshaped: bool = False
    # Whether a full refresh was requested: columns may be gone or of another type then.
    may_reshape: bool = False
    # The dates in which the inputs differ from those that `previous` was computed from; None: every date may.
    changed: ChangedDates | None = None
    # Adds to what the run says it has measured: a name, and a number, a text, or a mapping or list of them.
    # `rows_fetched` says how many rows were read where that is not the height of the table.
    report: Callable[[str, object], None] = field(default=_ignore_report, repr=False, compare=False)

    @cached_property
    def previous(self) -> pl.DataFrame | None:
        """The last version's whole content (the pinned one, never a failed run's leftover).

        None at first, in full mode, and in a run of a range of dates; also in the first run after such a one: what
        lies between is not known to have been read.
        """
        return None if self.mode is Mode.FULL else self.previous_reader()

    def tables(self, role: str) -> tuple[InputTable, ...]:
        """Return the inputs of a role, at least one.

        Raises:
            MissingInput: there is none.
        """
        tables = self.inputs.get(role, ())
        if not tables:
            given = ", ".join(sorted(self.inputs)) or "none"
            raise MissingInput(f"no input has the role {role!r} (the roles are: {given})")
        return tables
