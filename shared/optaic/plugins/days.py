"""Derive the day of an instant, in this one place: a day is always a day of a time zone."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from optaic.plugins.errors import OutOfRange, SchemaMismatch
from optaic.plugins.words import describe_type

if TYPE_CHECKING:
    import polars as pl

UTC = "UTC"
_EPOCH = dt.date(1970, 1, 1)
_FIRST, _LAST = (dt.date.min - _EPOCH).days, (dt.date.max - _EPOCH).days
_A_DAY = {"days": 1, "ms": 86_400_000, "us": 86_400_000_000}
_UNITS = {"days": "days", "ms": "milliseconds", "us": "microseconds"}


def day_in(moment: dt.datetime, zone: str) -> dt.date:
    """Return the day that a zone's calendar shows at a moment, which knows its own zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone, so it names no instant; give it a zone")
    return moment.astimezone(ZoneInfo(zone)).date()


def is_dated(kind: pl.DataType | None) -> bool:
    """Return whether a column of this type holds days, or instants that have one."""
    import polars as pl  # noqa: PLC0415 - importing plugins alone needs no data library

    return kind == pl.Date or isinstance(kind, pl.Datetime)


def zone_of(column: pl.Series, default: str = UTC) -> str:
    """Return the zone whose days a column's instants belong to: its own, else `default`."""
    return getattr(column.dtype, "time_zone", None) or default


def take_days(column: pl.Series, zone: str) -> pl.Series:
    """Return the days of a column of dates or times.

    Args:
        column: dates are taken as they are. Times without a zone are what a clock of `zone` showed: their day is the
            one that they are written with.
        zone: whose calendar is asked, see `zone_of`.

    Raises:
        OutOfRange: a day lies outside of the years 1 to 9999.
        SchemaMismatch: the column holds neither dates nor times.
    """
    import polars as pl  # noqa: PLC0415 - importing plugins alone needs no data library

    kind = column.dtype
    if kind == pl.Null:
        return column.cast(pl.Date)
    if not is_dated(kind):
        raise SchemaMismatch(f"column {column.name!r} contains {describe_type(kind)}, not dates")
    check_times(column)
    if isinstance(kind, pl.Datetime):
        local = column if kind.time_zone is None else column.dt.convert_time_zone(zone)
        column = local.dt.date()
        check_times(column)  # the last hours of the year 9999 are another year elsewhere
    return column


def check_times(column: pl.Series) -> None:
    """Refuse dates and times that no calendar of ours has; columns of other types pass.

    Raises:
        OutOfRange: naming the column and a row.
    """
    # In nanoseconds there are 64 bits for the years 1677 to 2262 only.
    unit = getattr(column.dtype, "time_unit", "days")
    if not is_dated(column.dtype) or unit == "ns":
        return
    values, a_day = column.to_physical(), _A_DAY[unit]
    wrong = ((values < _FIRST * a_day) | (values >= (_LAST + 1) * a_day)).arg_true()
    if wrong.len():
        row = wrong[0]
        raise OutOfRange(
            f"column {column.name!r}: {wrong.len()} values are outside the years 1 to 9999, the first "
            f"in row {row + 1}"
        )
