"""The row groups of a Parquet file; of a group as many rows at once are unpacked as fit into little memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import IO, Any

import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from pyarrow import parquet as pq

from optaic.rules.columns import KEYS
from optaic.tables.table import Bounds, Group

_MOST_ROWS = 16_384
_MOST_BYTES = 16 * 1024 * 1024
_BUFFER_BYTES = 256 * 1024


def open_parquet(file: IO[bytes]) -> Any:
    """Open a file; a column is read through a small buffer, and not whole."""
    return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False, memory_map=False)


def columns_of(opened: Any) -> pl.DataFrame:
    """Return the columns of a file as a table without rows."""
    return from_arrow(opened.schema_arrow.empty_table())


def groups_of(opened: Any) -> Sequence[Group]:
    """Return the row groups of a file."""
    return [_group(opened, number) for number in range(opened.metadata.num_row_groups)]


def from_arrow(table: Any) -> pl.DataFrame:
    """Return a table of Arrow as polars has it.

    polars believes all offsets and indices, and would return what lies beyond in the memory of this process, also its secrets.

    Raises:
        ValueError: An offset or an index leads beyond its values, or a text is none.
    """
    table.validate(full=True)
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


def _group(opened: Any, number: int) -> Group:
    metadata = opened.metadata.row_group(number)

    def read(wanted: Collection[str]) -> Iterator[pl.DataFrame]:
        names = opened.schema_arrow.names
        columns = [name for name in names if name in wanted] or names[:1]
        row_bytes = metadata.total_byte_size // max(1, metadata.num_rows) + 1
        rows = max(1, min(_MOST_ROWS, _MOST_BYTES // row_bytes))
        for batch in opened.iter_batches(rows, row_groups=[number], columns=columns, use_threads=False):
            yield from_arrow(pa.Table.from_batches([batch]))

    return Group(metadata.num_rows, _bounds_of(metadata), read)


def _bounds_of(metadata: Any) -> Mapping[str, Bounds]:
    found: dict[str, Bounds] = {}
    for place in range(metadata.num_columns):
        column = metadata.column(place)
        known = column.statistics if column.path_in_schema in KEYS else None
        if known is not None and known.has_min_max:
            found[column.path_in_schema] = (day_or_text(known.min), day_or_text(known.max))
    return found


def day_or_text(value: object) -> object:
    """Return a bound as it is compared: an instant by its day."""
    if isinstance(value, dt.datetime):
        return value.date()
    return value if isinstance(value, (dt.date, str)) else None
