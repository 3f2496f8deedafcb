"""Convert typed columns to other types without changing a value; reads no source."""

from __future__ import annotations

import datetime as dt

import polars as pl

from optaic.plugins import take_days, zone_of
from optaic.plugins.words import describe_type
from worker.builtin.typed.judging import Fitted, Misfit, fit
from worker.builtin.typed.kinds import storage_type
from worker.builtin.typed.numbers import NumberFormat, find_lossy


def convert(column: pl.Series, kind: pl.DataType, date_format: str = "") -> Fitted | Misfit:
    """Convert the values to a configured type; return the first value that does not fit instead.

    Raises:
        InvalidConfig: the format of dates is none.
    """
    if column.null_count() == column.len():
        return Fitted(pl.Series(column.name, [None], kind).new_from_index(0, column.len()))
    if isinstance(column.dtype, pl.Object):  # what the driver has no type for, as of a UUID
        column = pl.Series(
            column.name, [None if value is None else str(value) for value in column.to_list()], pl.String
        )
    own = storage_type(column.dtype)
    # Days written as whole numbers, 20240131, are read as they are written: as texts.
    if own == pl.String() or (column.dtype.is_integer() and kind.is_temporal()):
        return fit(column.cast(pl.String), kind, NumberFormat(), date_format, is_given=True)
    if own == kind or (isinstance(own, pl.Datetime) and isinstance(kind, pl.Datetime)):
        return Fitted(column)
    if kind == pl.Date() and isinstance(column.dtype, pl.Datetime):
        return _to_days(column)
    is_float = column.dtype.is_decimal() and kind.is_float()
    return _to_float(column) if is_float else _cast(column, kind)


def to_exact_floats(column: pl.Series) -> pl.Series | None:
    """Convert whole numbers to Float64; return None if one of them would become another number."""
    floats = column.cast(pl.Float64)
    back = floats.cast(column.dtype, strict=False)  # null where it was rounded up beyond the type
    return floats if back.null_count() == column.null_count() and (back == column).all() else None


def _cast(column: pl.Series, kind: pl.DataType) -> Fitted | Misfit:
    """Cast the values to another type, if casting them back gives the same values."""
    if (
        column.dtype.is_temporal() is not kind.is_temporal()
    ):  # a time is no number of something since some day
        return _refuse(column, column.is_not_null(), kind)
    try:
        values = column.cast(kind, strict=False)
        same = values.cast(column.dtype, strict=False) == column
    except pl.exceptions.PolarsError:
        values, same = column, pl.Series([False]).new_from_index(0, column.len())
    wrong = (~same).fill_null(value=True) & column.is_not_null()
    return _refuse(column, wrong, kind) if wrong.any() else Fitted(values)


def find_lost_digits(table: pl.DataFrame) -> dict[str, str]:
    """Return which columns of decimals would lose digits as Float64, by name, with the first value."""
    found = {}
    for column in table.select(pl.selectors.decimal()):
        fitted = _to_float(column)
        if isinstance(fitted, Misfit):
            found[column.name] = f"{fitted.text!r} in row {fitted.row + 1} {fitted.why}"
    return found


def _to_float(column: pl.Series) -> Fitted | Misfit:
    """Convert decimals to floats if no digit is lost; zeros that only the scale adds do not count."""
    written = column.cast(pl.String)
    texts = written.str.replace(r"(\.[0-9]*?)0+$", "${1}").str.strip_suffix(".")
    floats = texts.cast(pl.Float64)
    lossy = find_lossy(texts, floats, NumberFormat())
    if not lossy.any():
        return Fitted(floats)
    row = lossy.arg_max()
    assert row is not None
    return Misfit(row, written[row], "has more digits than Float64 can keep", int(lossy.sum()))


def _to_days(column: pl.Series) -> Fitted | Misfit:
    """Convert midnights in the column's zone to days; refuse any other time, because it would get lost.

    Where a clock is put forward at midnight, the day begins later.
    """
    zone = zone_of(column)
    days = take_days(column, zone)
    shown = column if column.dtype.time_zone is None else column.dt.convert_time_zone(zone)  # type: ignore[attr-defined] # it is of times
    before = column.dt.cast_time_unit("us") - dt.timedelta(microseconds=1)
    begins = (take_days(before, zone) < days) & (shown.dt.second() == 0) & (shown.dt.nanosecond() == 0)
    wrong = ((shown.dt.time() != dt.time()) & ~begins).fill_null(value=False)
    return _refuse(column, wrong, pl.Date()) if wrong.any() else Fitted(days)


def _refuse(column: pl.Series, wrong: pl.Series, kind: pl.DataType) -> Misfit:
    row = wrong.arg_max()
    assert row is not None
    return Misfit(row, str(column[row]), f"would change as {describe_type(kind)}", int(wrong.sum()))
