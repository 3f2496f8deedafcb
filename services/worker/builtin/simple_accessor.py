"""The accessor `simple`: rows and columns of one version; it changes no value."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import polars as pl

from optaic.plugins import Accessor, SchemaMismatch, Store, take_days, zone_of


class SimpleAccessor(Accessor):
    """Selects columns (keys always come along), entities and dates."""

    def read(
        self,
        store: Store,
        uri: str,
        physical_version: str,
        *,
        columns: Sequence[str] | None = None,
        entities: Sequence[str] | None = None,
        start: dt.date | None = None,
        end: dt.date | None = None,
    ) -> pl.DataFrame:
        """Rows of one version."""
        table = store.read(uri, physical_version)
        return select_rows(table, columns=columns, entities=entities, start=start, end=end)


def select_rows(
    table: pl.DataFrame,
    *,
    columns: Sequence[str] | None,
    entities: Sequence[str] | None,
    start: dt.date | None,
    end: dt.date | None,
) -> pl.DataFrame:
    """The rows and columns of a table that a reader asks for; None selects everything.

    Raises:
        SchemaMismatch: a named column does not exist.
    """
    keys = [key for key in ("date", "entity") if key in table.columns]
    wanted = [*keys, *(column for column in columns or table.columns if column not in keys)]
    conditioned = [("entity", entities), ("date", start), ("date", end)]
    needed = [*wanted, *(column for column, condition in conditioned if condition is not None)]
    if missing := sorted(set(needed) - set(table.columns)):
        raise SchemaMismatch(f"no column {', '.join(missing)} (there are {', '.join(table.columns)})")
    if entities is not None:
        table = table.filter(pl.col("entity").is_in(list(entities)))
    return between(table, start, end).select(wanted)


def between(table: pl.DataFrame, start: dt.date | None, end: dt.date | None) -> pl.DataFrame:
    """The rows whose `date` is a day from `start` to `end`, both included; None is unbounded.

    Raises:
        SchemaMismatch: there is a bound, and `date` holds neither dates nor times.
    """
    if start is None and end is None:
        return table
    days = take_days(table["date"], zone_of(table["date"]))
    if start is not None:
        table, days = table.filter(days >= start), days.filter(days >= start)
    return table if end is None else table.filter(days <= end)
