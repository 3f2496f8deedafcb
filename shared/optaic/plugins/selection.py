"""Select rows and columns of a table, for accessors and for clients that read other outputs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optaic.plugins.days import take_days, zone_of
from optaic.plugins.errors import SchemaMismatch
from optaic.rules.columns import DATE, ENTITY, KEYS

if TYPE_CHECKING:
    import polars as pl


def select_rows(
    table: pl.DataFrame,
    *,
    columns: Sequence[str] | None,
    entities: Sequence[str] | None,
    start: dt.date | None,
    end: dt.date | None,
) -> pl.DataFrame:
    """Return the rows and columns of a table that a reader asks for; None selects everything.

    Raises:
        SchemaMismatch: a named column does not exist.
    """
    keys = [key for key in KEYS if key in table.columns]
    wanted = [*keys, *(name for name in dict.fromkeys(columns or table.columns) if name not in keys)]
    conditioned = [(ENTITY, entities), (DATE, start), (DATE, end)]
    needed = [*wanted, *(column for column, condition in conditioned if condition is not None)]
    if missing := sorted(set(needed) - set(table.columns)):
        raise SchemaMismatch(f"no column {', '.join(missing)} (the columns are {', '.join(table.columns)})")
    import polars as pl  # noqa: PLC0415 - importing plugins alone needs no data library

    if entities is not None:
        if table.schema[ENTITY].is_integer():  # names are texts, whatever a plugin keeps them as
            table = table.filter(pl.col(ENTITY).cast(pl.String).is_in(list(map(str, entities))))
        else:
            table = table.filter(pl.col(ENTITY).is_in(list(entities)))
    return between(table, start, end).select(wanted)


def between(table: pl.DataFrame, start: dt.date | None, end: dt.date | None) -> pl.DataFrame:
    """Return the rows whose `date` is a day from `start` to `end`, both included; None is unbounded.

    Raises:
        SchemaMismatch: there is a bound, and `date` holds neither dates nor times.
    """
    if start is None and end is None:
        return table
    days = take_days(table[DATE], zone_of(table[DATE]))
    if start is not None:
        table, days = table.filter(days >= start), days.filter(days >= start)
    return table if end is None else table.filter(days <= end)
