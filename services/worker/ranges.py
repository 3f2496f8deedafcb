"""Refresh a range of dates: replace the rows of these dates and keep all others; no storage is touched."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from optaic.plugins import DateRange, NoDataInRange, SchemaMismatch, take_days, zone_of
from optaic.plugins.words import describe_columns, describe_type
from optaic.rules.columns import DATE
from worker.builtin.typed.casting import to_exact_floats

_TEXTS = (pl.Categorical, pl.Enum)


@dataclass(frozen=True)
class Merged:
    """The whole content after the refresh, and what that took."""

    table: pl.DataFrame
    dropped_count: int  # rows that were computed, but lie outside the range
    new_columns: tuple[str, ...]  # absent outside the range


def put_in_place(
    part: pl.DataFrame, base: pl.DataFrame | None, dates: DateRange, *, allow_deletion: bool
) -> Merged:
    """Return the version before with the rows of a range replaced; rows outside stay exactly as they are.

    Whole numbers outside become Float64 where the range has fractions, if each of them stays the same number.

    Args:
        part: what was computed; of no rows, its columns do not count.
        base: the version before; None at first, then the range is all there is.
        dates: the range.
        allow_deletion: whether every row of the range may go.

    Raises:
        NoDataInRange: nothing was computed for the range.
        SchemaMismatch: a table has no `date`, or a column that lacks, or is of a type that does not go with the rest.
    """
    inside = part if part.is_empty() else _inside(part, dates)
    dropped_count = part.height - inside.height
    if inside.is_empty():
        _check_emptied(base, dates, allow_deletion=allow_deletion)
        assert base is not None
        inside = base.clear()
    if base is None:
        return Merged(inside, dropped_count, ())
    if DATE not in base.columns:
        raise SchemaMismatch(
            f"the previous version has no column {DATE!r} (it has {describe_columns(base.columns)}); refresh without a range"
        )
    zone = zone_of(inside[DATE], zone_of(base[DATE]))  # the range is one of the days that were computed
    base = _widen(_take_types(base, inside), inside)
    conformed = _conform(inside, base, dates)
    new_columns = tuple(name for name in conformed.columns if name not in base.columns)
    outside = base.filter(~_is_inside(base, dates, zone)).with_columns(
        pl.lit(None, dtype=conformed.schema[name]).alias(name) for name in new_columns
    )
    return Merged(
        pl.concat([outside, conformed.select(outside.columns)], how="vertical"), dropped_count, new_columns
    )


def count_inside(base: pl.DataFrame | None, dates: DateRange) -> int:
    """Return how many rows of the version before lie in a range."""
    return 0 if base is None else _inside(base, dates).height


def _check_emptied(base: pl.DataFrame | None, dates: DateRange, *, allow_deletion: bool) -> None:
    where = f"from {dates.start or 'the start'} to {dates.end or 'the end'}"
    count = count_inside(base, dates)
    if count == 0:
        raise NoDataInRange(f"there are no rows {where}")
    if not allow_deletion:
        raise NoDataInRange(
            f"there are no rows {where}, but the previous version has {count}; nothing was written. If these rows no "
            "longer exist at the source, submit the run with allow_deletion and a reason"
        )


def _inside(table: pl.DataFrame, dates: DateRange) -> pl.DataFrame:
    if DATE not in table.columns:
        text = f"a range of dates needs a column {DATE!r}; the table has {describe_columns(table.columns)}"
        raise SchemaMismatch(text)
    return table.filter(_is_inside(table, dates, zone_of(table[DATE])))


def _is_inside(table: pl.DataFrame, dates: DateRange, zone: str) -> pl.Series:
    """Return which rows lie in the range by the calendar of a zone; one without a date does not."""
    days = take_days(table[DATE], zone)
    is_inside = days.is_not_null()
    if dates.start is not None:
        is_inside &= days >= dates.start
    if dates.end is not None:
        is_inside &= days <= dates.end
    return is_inside.fill_null(value=False)


def _take_types(base: pl.DataFrame, part: pl.DataFrame) -> pl.DataFrame:
    """Return the version before; a column in which there is no value yet gets the type of those that come."""
    return base.with_columns(
        column.cast(part.schema[column.name])
        for column in base.iter_columns()
        if _is_empty(column) and column.name in part.columns and not _is_empty(part[column.name])
    )


def _widen(base: pl.DataFrame, part: pl.DataFrame) -> pl.DataFrame:
    """Return the version before; whole numbers as floats where the part has fractions, and no number changes.

    Raises:
        SchemaMismatch: a whole number is one that no float is.
    """
    widened = []
    for column in part.iter_columns():
        was = base.schema.get(column.name)
        if was is None or not (was.is_integer() and column.dtype.is_float()):
            continue
        if _cast_numbers(column, was) is not None:
            continue  # there is no fraction: the column stays one of whole numbers
        floats = to_exact_floats(base[column.name])
        if floats is None:
            raise SchemaMismatch(
                f"column {column.name!r} is {describe_type(column.dtype)} in the range, but whole numbers outside the range "
                f"would change as {describe_type(column.dtype)}; refresh without a range"
            )
        widened.append(floats)
    return base.with_columns(widened)


def _is_empty(column: pl.Series) -> bool:
    return column.null_count() == column.len()


def _conform(part: pl.DataFrame, base: pl.DataFrame, dates: DateRange) -> pl.DataFrame:
    """Return the part with the types that the other rows have: what differs in form only is made alike."""
    if missing := [name for name in base.columns if name not in part.columns]:
        raise SchemaMismatch(
            f"the rows from {dates.start or 'the start'} to {dates.end or 'the end'} have no column "
            f"{', '.join(missing)}, which the other rows have; refresh without a range"
        )
    columns = []
    for column in part.iter_columns():
        wanted = base.schema.get(column.name)
        found = column if wanted is None else _cast(column, wanted)
        if found is None:
            assert wanted is not None  # a new column is taken as it is
            raise SchemaMismatch(
                f"column {column.name!r} is {describe_type(column.dtype)} in the range and {describe_type(wanted)} outside it; refresh without a range"
            )
        columns.append(found)
    return pl.DataFrame(columns)


def _cast(column: pl.Series, wanted: pl.DataType) -> pl.Series | None:
    """Return the same values in another type; None where a value would become another one."""
    given = column.dtype
    if given in {wanted, pl.Null} or _is_empty(column) or (isinstance(given, _TEXTS) and wanted == pl.String):
        return column.cast(wanted)
    if isinstance(given, pl.Datetime) and isinstance(wanted, pl.Datetime):
        return _cast_times(column, given.time_zone, wanted)
    return _cast_numbers(column, wanted) if given.is_numeric() and wanted.is_numeric() else None


def _cast_times(column: pl.Series, zone: str | None, wanted: pl.Datetime) -> pl.Series | None:
    if (zone is None) is not (wanted.time_zone is None):
        return None
    moved = column if wanted.time_zone is None else column.dt.convert_time_zone(wanted.time_zone)
    return moved.dt.cast_time_unit(wanted.time_unit)


def _cast_numbers(column: pl.Series, wanted: pl.DataType) -> pl.Series | None:
    if column.dtype.is_integer() and wanted.is_float():
        return to_exact_floats(column)
    cast = column.cast(wanted, strict=False)
    is_same = cast.null_count() == column.null_count() and cast.cast(column.dtype, strict=False).equals(
        column
    )
    return cast if is_same else None
