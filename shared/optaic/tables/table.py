"""A table as files, each of them groups of rows that can be passed over; nothing is read before it is asked for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import polars as pl

from optaic.rules.columns import DATE, ENTITY

_ZONE_DAYS = 1
Bounds = tuple[object, object]  # the smallest value of a column, and the largest


@dataclass(frozen=True)
class Selection:
    """The part of a table to read; None selects everything, and dates are inclusive."""

    columns: Sequence[str] | None = None
    entities: Sequence[str] | None = None
    start: dt.date | None = None
    end: dt.date | None = None

    def may_have(self, bounds: Mapping[str, Bounds]) -> bool:
        """Return whether rows within these bounds of `date` and `entity` may be wanted; what is not known may be."""
        first, last = bounds.get(DATE, (None, None))
        # An instant belongs to another day in another zone.
        if (
            isinstance(last, dt.date)
            and self.start
            and last.toordinal() < self.start.toordinal() - _ZONE_DAYS
        ):
            return False
        if isinstance(first, dt.date) and self.end and first.toordinal() > self.end.toordinal() + _ZONE_DAYS:
            return False
        low, high = bounds.get(ENTITY, (None, None))
        if self.entities is None or not isinstance(low, str) or not isinstance(high, str):
            return True
        return any(low <= name <= high for name in self.entities)


@dataclass(frozen=True)
class Group:
    """A group of rows that lie together in a file; `read` gives some columns in pieces, those that the file has."""

    rows: int | None
    bounds: Mapping[str, Bounds]
    read: Callable[[Collection[str]], Iterator[pl.DataFrame]]


@dataclass(frozen=True)
class TableFile:
    """A file of a table, and what is known of it before it is opened."""

    bounds: Mapping[str, Bounds]
    open: Callable[[], AbstractContextManager[Sequence[Group]]]


@dataclass(frozen=True)
class Table:
    """A table: its columns as a table without rows, its files in the order of its rows, and its rows where they are counted.

    `zones` are those of its instants, which stores keep in UTC, and `zone` that of the others; None: as the files have them.
    """

    columns: pl.DataFrame
    files: Sequence[TableFile]
    rows: int | None = None
    zones: Mapping[str, str] = field(default_factory=dict)
    zone: str | None = None

    def shape(self, piece: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
        """Return a piece of a file with the columns that the table has, in its types and on its clocks."""
        kinds = self.columns.schema
        return self.on_clocks(
            piece.select(
                (pl.col(name) if name in piece.columns else pl.repeat(None, pl.len()).alias(name)).cast(
                    kinds[name]
                )
                for name in wanted
            )
        )

    def on_clocks(self, piece: pl.DataFrame) -> pl.DataFrame:
        """Return the same instants, each column on its own clock."""
        if self.zone is None:
            return piece
        instants = piece.select(pl.selectors.datetime(time_zone="*")).columns
        return piece.with_columns(
            pl.col(name).dt.convert_time_zone(self.zones.get(name, self.zone)) for name in instants
        )
