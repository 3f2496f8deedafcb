"""A table's canonical form and the SHA-256 of its content; it touches no storage.

The hash is over our own bytes, not over a file format's: padding, compression, column order, row order and library
versions do not enter it, so equal content has an equal digest on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from optaic.plugins import SchemaMismatch
from optaic.plugins.words import describe_columns, describe_type
from worker.builtin.column_names import check_column_names
from worker.builtin.limits import check_values
from worker.builtin.typed.kinds import DEFAULT

_TEXTS = (pl.String, pl.Categorical, pl.Enum)


def canonicalize(table: pl.DataFrame, keys: Sequence[str], known: Collection[str] = ()) -> pl.DataFrame:
    """Return the table with storage types (Int64, Float64, String, Boolean, Date, Datetime in microseconds), sorted by key.

    A column of nulls without a type becomes Float64. Times with a zone become UTC; the zone is not part of the content.

    Args:
        table: of any types.
        keys: the columns that identify a row.
        known: the columns that a version before it has, whatever their names.

    Raises:
        InvalidColumnName: a column has no name, or one that not every store keeps.
        OutOfRange: a date or a time lies outside of the years 1 to 9999, or a whole number takes more than 64 bits.
        SchemaMismatch: a key is absent, null or repeated, or a column's type cannot be kept.
    """
    missing = [key for key in keys if key not in table.columns]
    if missing:
        raise SchemaMismatch(
            f"the table has no key column {', '.join(missing)} (it has {describe_columns(table.columns)}); change the pipeline, "
            "or `keys` of the store"
        )
    check_column_names(table.columns, known)
    check_values(table)
    cast = to_storage(table)
    for key in keys:
        if cast[key].null_count():
            raise SchemaMismatch(
                f"key column {key!r} has nulls; remove these rows in the pipeline, or change `keys` of the store"
            )
    repeated = cast.filter(pl.struct(keys).is_duplicated()).select(keys)
    if repeated.height:
        raise SchemaMismatch(
            f"{repeated.height} rows repeat a key ({', '.join(keys)}); keep one of each, or add the "
            "column that distinguishes them to `keys` of the store"
        )
    return sort_by(cast, keys)


def sort_by(table: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return the table sorted by columns without nulls; what is sorted is not sorted again."""
    if not keys or table.is_empty():
        return table
    if not table[keys[0]].is_sorted():
        table = table.sort(keys[0], maintain_order=True)  # parts in another order, each of them sorted
    is_after = pl.lit(value=False)
    for name in reversed(keys):
        before = pl.col(name).shift(1)
        is_after = (pl.col(name) > before) | ((pl.col(name) == before) & is_after)
    return table if table.select(is_after.slice(1).all()).item() else table.sort(keys)


def to_storage(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table with storage types; rows stay in their order."""
    return table.select(_storage_type(name, kind) for name, kind in table.schema.items())


def compute_digest(canonical: pl.DataFrame) -> str:
    """Compute the SHA-256 (hexadecimal) of a canonical table; the order of its columns does not matter."""
    sha = hashlib.sha256()
    for name in sorted(canonical.columns):
        column = canonical[name]
        header = f"{len(name)}:{name}:{name_type(column.dtype)}:{column.len()}\n"
        sha.update(header.encode())
        is_null = column.is_null()
        sha.update(np.packbits(is_null.to_numpy()).tobytes())
        for part in _encode(column):
            sha.update(part)
    return sha.hexdigest()


def _storage_type(name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if kind.is_integer():
        return column.cast(pl.Int64)
    if kind.is_float():
        return column.cast(pl.Float64)
    if kind in _TEXTS:
        return column.cast(pl.String)
    if isinstance(kind, pl.Datetime):
        zone = None if kind.time_zone is None else "UTC"
        return (column if zone is None else column.dt.convert_time_zone(zone)).dt.cast_time_unit("us")
    if kind in {pl.Boolean, pl.Date}:
        return column
    if kind == pl.Null:
        return column.cast(DEFAULT)
    raise SchemaMismatch(
        f"column {name!r} has the type {describe_type(kind)}, which this store cannot keep; convert it"
    )


def name_type(kind: pl.DataType) -> str:
    """Return our own name of a storage type, so that a new name in polars changes no digest."""
    if isinstance(kind, pl.Datetime):
        return "datetime" if kind.time_zone is None else "datetime_utc"
    names = {
        pl.Int64: "int64",
        pl.Float64: "float64",
        pl.String: "text",
        pl.Boolean: "boolean",
        pl.Date: "date",
    }
    return names[type(kind)]


def _encode(column: pl.Series) -> Sequence[bytes]:
    """Encode the values as bytes, missing ones as zero; values of equal meaning get equal bytes."""
    if column.dtype == pl.String:
        lengths = column.str.len_bytes().fill_null(0).cast(pl.Int64).to_numpy()
        return [lengths.astype("<i8").tobytes(), "".join(column.fill_null("").to_list()).encode()]
    return [to_numbers(column).tobytes()]


def to_numbers(column: pl.Series) -> NDArray[np.float64] | NDArray[np.int64]:
    """Return values that are no texts as little-endian numbers of 8 bytes, missing ones as zero."""
    if column.dtype == pl.Float64:
        values = column.fill_null(0.0).to_numpy() + 0.0  # -0.0 becomes 0.0
        return np.where(np.isnan(values), np.nan, values).astype("<f8")
    return column.to_physical().cast(pl.Int64).fill_null(0).to_numpy().astype("<i8")
