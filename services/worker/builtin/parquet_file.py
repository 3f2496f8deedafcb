"""Read a Parquet file as a table whose instants have their zone; no file is opened here."""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Collection, Sequence

import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from pyarrow import parquet as pq

from optaic.plugins import SchemaMismatch, UnparsableData
from optaic.plugins.days import check_times
from worker.builtin.zones import to_zones
from worker.sources.content import too_large

_SMALLEST_VALUE = 4  # bytes; a column may be packed to almost nothing
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
_ARROW_SCHEMA = (
    "ARROW:schema"  # what zone a column has; without it a file says of instants that they are some, no more
)


def read_parquet(
    content: bytes,
    timezone: str,
    columns: Collection[str],
    dates: Collection[str],
    source: str,
    *,
    most: int,
) -> pl.DataFrame:
    """Read the table of the file.

    Args:
        content: the file.
        timezone: the zone of instants where the file says none.
        columns: those that matter; empty: all.
        dates: those of which only the day does.
        source: what the file is called.
        most: bytes that its table may take.

    Raises:
        SchemaMismatch: a column's zone is none that is known here.
        SourceNotAllowed: its table would take more bytes.
        UnparsableData: it is no readable file.
    """
    try:
        metadata = pq.read_metadata(io.BytesIO(content))
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnparsableData(f"{source} is not a readable parquet file ({type(error).__name__})") from None
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if max(unpacked, metadata.num_rows * metadata.num_columns * _SMALLEST_VALUE) > most:
        raise too_large(f"{source}, as a table,", most)
    odd = [field.name for field in schema if pa.types.is_timestamp(field.type) and not _is_known(field.type)]
    table = _read_odd(content, odd, columns, dates, source) if odd else pl.read_parquet(io.BytesIO(content))
    has_zones = _ARROW_SCHEMA in pl.read_parquet_metadata(io.BytesIO(content))
    return table if has_zones else to_zones(table, {}, timezone)


def _read_odd(
    content: bytes, odd: Sequence[str], columns: Collection[str], dates: Collection[str], source: str
) -> pl.DataFrame:
    """Return the table of a file some of whose columns have zones that polars has not; of these the ones that matter."""
    read = pq.read_table(io.BytesIO(content))
    matter = [name for name in odd if not columns or name in columns]
    if lost := [name for name in matter if name not in dates]:
        raise _refuse(lost[0], source)
    table = pl.from_arrow(read.drop_columns(odd))
    assert isinstance(table, pl.DataFrame)
    table = table.with_columns(_show_days(read.column(name), name, source) for name in matter)
    return table.select(name for name in read.column_names if name in table.columns)


def _is_known(kind: pa.TimestampType) -> bool:
    """Return whether polars has the zone; reading a column of an unknown zone would end the process."""
    try:
        pl.from_arrow(pa.array([], kind))
    except pl.exceptions.PolarsError:
        return False
    return True


def _show_days(column: pa.ChunkedArray, name: str, source: str) -> pl.Series:
    """Return what a clock with the column's offset shows.

    Raises:
        OutOfRange: a time lies outside of the years 1 to 9999.
        SchemaMismatch: its zone is no offset.
    """
    if not (found := _OFFSET.fullmatch(column.type.tz)):
        raise _refuse(name, source)
    offset = dt.timedelta(hours=int(found[2]), minutes=int(found[3]))
    instants = pl.Series(name, pl.from_arrow(column.cast(pa.timestamp(column.type.unit))))
    check_times(instants)
    return instants - offset if found[1] == "-" else instants + offset


def _refuse(name: str, source: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"{source}: column {name!r} has a zone which is not an IANA zone; write the file with "
        "one like Asia/Kathmandu, or name the column in `dates` if only its days are needed"
    )
