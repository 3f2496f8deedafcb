"""Apply the configured types to a table whose source has its own types; no source is read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from optaic.plugins import InvalidConfig
from optaic.plugins.words import describe_columns, describe_type
from worker.builtin.typed.casting import convert
from worker.builtin.typed.judging import Misfit
from worker.builtin.typed.kinds import check_dates
from worker.builtin.typed.refusals import misfit_error, shorten

_GIVEN = "Correct it at the source, or give the column another type in `types`."
_DECIMAL = "Give the column the type String in `types` to keep all its digits."


def give_types(
    table: pl.DataFrame,
    types: Mapping[str, pl.DataType],
    dates: Sequence[str],
    date_format: object,
    source: str,
    report: Callable[[str, object], None],
) -> pl.DataFrame:
    """Return the columns as the given types, and decimals as Float64 where no digit is lost.

    Raises:
        InvalidConfig: a type is given for a column that is not there, or is one of `dates`.
        UnparsableData: a value does not fit; naming column and row.
    """
    _check_types(table, types, dates)
    formats = date_format if isinstance(date_format, Mapping) else {}
    columns, given, lossy = [], {}, {}
    for column in table:
        name = column.name
        kind = types.get(name) or (pl.Float64() if column.dtype.is_decimal() else None)
        if kind is None or name in dates:
            columns.append(column)
            continue
        fitted = convert(column, kind, str(formats.get(name, "")))
        if isinstance(fitted, Misfit):
            how = _GIVEN if name in types else _DECIMAL
            raise misfit_error(source, name, kind, fitted, f"row {fitted.row + 1}", how)
        columns.append(fitted.values)
        if name in types:
            given[name] = describe_type(kind)
        if fitted.lossy_count:
            lossy[name] = fitted.lossy_count
    if given:
        report("types_given", shorten(given))
    if lossy:
        report("digits_lost", shorten(lossy))
    return pl.DataFrame(columns)


def _check_types(table: pl.DataFrame, types: Mapping[str, pl.DataType], dates: Sequence[str]) -> None:
    check_dates(types, dates)
    for name in types:
        if name not in table.columns:
            raise InvalidConfig(
                f"types.{name}: the table has no column {name!r}; it has {describe_columns(table.columns)}"
            )
