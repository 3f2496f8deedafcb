"""Prepare a source's table for a store: rename columns, parse dates, cut rows; reads no source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from optaic.plugins import (
    DateRange,
    InvalidConfig,
    NoDataInRange,
    SchemaMismatch,
    UnparsableData,
    between,
    is_dated,
    take_days,
    zone_of,
)
from optaic.plugins.words import describe_columns, describe_type
from optaic.rules.columns import DATE, ENTITY
from worker.builtin.column_names import check_source_names
from worker.builtin.parameters import Config, read_date, read_names, read_section
from worker.builtin.typed.kinds import storage_type
from worker.builtin.typed.times import ISO_DATE, to_dates

ISO = ISO_DATE


def read_mapping(config: Config) -> Mapping[str, str]:
    """Read `columns`: names in the result to names at the source; empty keeps all columns under their own names."""
    mapping = read_section(config, "columns")
    for name, source in mapping.items():
        if not isinstance(source, str) or not source:
            raise InvalidConfig(f"columns.{name}: must be the name of a column of the source")
    return {name: str(source) for name, source in mapping.items()}


def read_range(config: Config, date_range: DateRange) -> DateRange:
    """Return the dates that both a configuration (`start`, `end`, `as_of`) and a run allow."""
    starts = [date for date in (read_date(config, "start"), date_range.start) if date]
    ends = [date for date in (read_date(config, "end"), read_date(config, "as_of"), date_range.end) if date]
    return DateRange(max(starts, default=None), min(ends, default=None))


def read_date_columns(config: Config) -> tuple[str, ...]:
    """Read `dates`: the columns of the result that hold dates."""
    return read_names(config, "dates") or (DATE,)


def check_columns(wanted: Sequence[str], found: Sequence[str], source: str) -> None:
    """Refuse a source that lacks columns.

    Raises:
        SchemaMismatch: naming all that are missing, but none that the source has.
    """
    if missing := [name for name in wanted if name not in found]:
        raise SchemaMismatch(
            f"{source} has no column {', '.join(missing)} (it has {describe_columns(found)}); correct `columns` or `dates`"
        )


def choose(table: pl.DataFrame, mapping: Mapping[str, str], source: str) -> pl.DataFrame:
    """Return the columns that `columns` names, under the result's names; all where it names none.

    Raises:
        InvalidColumnName: a column has no name, or one that not every store keeps.
        SchemaMismatch: a column is missing.
    """
    check_columns(list(mapping.values()), table.columns, source)
    check_source_names(list(mapping) or table.columns)
    if not mapping:
        return table
    # By exact names: `pl.col` takes `*` and `^...$` for patterns.
    exact = pl.selectors.by_name
    return table.select(exact(given).as_expr().alias(name) for name, given in mapping.items())


def tidy(
    table: pl.DataFrame, dates: Sequence[str], date_format: str | Mapping[str, str], source: str
) -> pl.DataFrame:
    """Convert a chosen table: dates to Date, decimals to floats.

    The date of a time is the day in its column's zone.

    Raises:
        OutOfRange: a date lies outside of the years 1 to 9999.
        SchemaMismatch: a column is missing.
        UnparsableData: a date is none.
    """
    check_columns(dates, table.columns, source)
    table = table.with_columns(pl.selectors.decimal().cast(pl.Float64))
    if ENTITY in table.columns:
        table = table.with_columns(pl.col(ENTITY).cast(pl.String))
    formats = {
        name: date_format if isinstance(date_format, str) else date_format.get(name, "") for name in dates
    }
    return table.with_columns(_to_date(table[name], formats[name], source) for name in dates)


def cut(table: pl.DataFrame, dates: DateRange, source: str) -> pl.DataFrame:
    """Return the rows whose `date` lies in a range.

    Raises:
        NoDataInRange: there is none.
    """
    table = between(table, dates.start, dates.end)
    if table.is_empty():
        raise NoDataInRange(
            f"{source} has no rows from {dates.start or 'its start'} to {dates.end or 'its end'}"
        )
    return table


def _to_date(column: pl.Series, date_format: str, source: str) -> pl.Series:
    if column.dtype == pl.Null or is_dated(column.dtype):
        return take_days(column, zone_of(column))
    if not (storage_type(column.dtype) == pl.String() or column.dtype.is_integer()):
        raise UnparsableData(
            f"{source}: column {column.name!r} contains {describe_type(column.dtype)}, not dates; "
            "name a column of dates"
        )
    texts = column.cast(pl.String)
    parsed = to_dates(texts, date_format)
    wrong = (parsed.is_null() & texts.is_not_null()).arg_true()
    if wrong.len():
        row = wrong[0]
        raise UnparsableData(
            f"{source}: {wrong.len()} values of {column.name!r} are not dates like {date_format or ISO}, "
            f"the first is in row {row + 1}"
        )
    return parsed
