"""Profile a table, so that a contract can be checked without reading the table again."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from optaic.plugins.words import describe_type
from optaic.rules.columns import KEYS
from optaic.run.v1 import run_pb2

_LARGEST = 64_000  # bytes; it travels with every event of the run


def describe(table: pl.DataFrame, keys: Sequence[str]) -> run_pb2.OutputProfile | None:
    """Return the exact profile of a table; None where it would be too large.

    Args:
        table: the whole content of a version.
        keys: columns that are known to identify a row. Empty: `date` and `entity`, if they do.
    """
    profile = run_pb2.OutputProfile(row_count=table.height, key_columns=keys or _find_keys(table))
    for name, kind in table.schema.items():
        if "\0" in name:  # no database keeps such a name
            return None
        profile.columns.append(_describe_column(table[name], kind))
    return profile if profile.ByteSize() <= _LARGEST else None


def _find_keys(table: pl.DataFrame) -> Sequence[str]:
    if not set(KEYS) <= set(table.columns):
        return ()
    keys = table.select(KEYS)
    has_nulls = any(column.null_count() for column in keys)
    return () if has_nulls or keys.is_duplicated().any() else KEYS


def _describe_column(column: pl.Series, kind: pl.DataType) -> run_pb2.ColumnProfile:
    is_numeric = kind.is_numeric() or kind == pl.Null
    profile = run_pb2.ColumnProfile(
        name=column.name, type=describe_type(kind), is_numeric=is_numeric, null_count=column.null_count()
    )
    if not is_numeric:
        return profile
    values = column.cast(pl.Float64).drop_nulls()
    profile.nan_count, profile.infinite_count = int(values.is_nan().sum()), int(values.is_infinite().sum())
    finite = values.filter(values.is_finite())
    low, high = finite.min(), finite.max()
    if isinstance(low, float) and isinstance(high, float):
        profile.min_value, profile.max_value = low, high
    return profile
