"""The table in the files of a store or of a run."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import IO, Any

import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from pyarrow import csv

from optaic.tables.parquet import columns_of, from_arrow, groups_of, open_parquet
from optaic.tables.places import Places
from optaic.tables.problems import TableError, no_table
from optaic.tables.table import Group, Table, TableFile

_VERSION = re.compile(r"[0-9a-f]{64}(-[0-9a-f]{16})?")
_NAME = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z._-]{0,200}")
_MANIFEST = "manifest.json"
_MOST_MANIFEST_BYTES = 1024 * 1024
_MOST_JSON_BYTES = 32 * 1024 * 1024  # it is read whole
_CSV_BYTES = 1024 * 1024
_PARQUET, _ARROW = b"PAR1", b"ARROW1"


def open_parquet_version(places: Places, uri: str, version: str, timezone: str) -> Table:
    """Return one version of a table of the store `parquet`.

    Raises:
        TableError: VERSION_NOT_FOUND, DATA_NOT_READABLE: its manifest names another place.
        OSError: It cannot be read.
        ValueError: Its manifest is none.
    """
    if not _VERSION.fullmatch(version):
        raise TableError("VERSION_NOT_FOUND", "the store `parquet` has no such version")
    manifest = json.loads(places.read(f"{uri}/{version}/{_MANIFEST}", _MOST_MANIFEST_BYTES))
    if not _NAME.fullmatch(str(manifest["file"])):
        raise TableError(
            "DATA_NOT_READABLE", "the manifest of the version names a file outside of the version's folder"
        )
    opened = open_parquet(places.keep(f"{uri}/{version}/{manifest['file']}"))
    if opened.metadata.num_rows != manifest["row_count"]:
        raise TableError("DATA_NOT_READABLE", "rows of the version are missing; restore its files")
    zones = {str(name): str(zone) for name, zone in manifest.get("zones", {}).items()}
    return _of_parquet(opened, zones, timezone or "UTC")


def open_file(places: Places, uri: str) -> Table:
    """Return the table in one file of a run.

    Raises:
        TableError: NOT_A_TABLE.
        OSError: It cannot be read.
        ValueError: It is not what its name says.
    """
    file = places.keep(uri)
    start = file.read(len(_ARROW))
    file.seek(0)
    if start.startswith(_PARQUET):
        return _of_parquet(open_parquet(file))
    if start == _ARROW:
        return _of_arrow(file)
    match uri.rpartition("/")[2].rpartition(".")[2].lower():
        case "csv":
            return _of_csv(file)
        case "json" | "jsonl" | "ndjson" as kind:
            return _of_json(file, is_lines=kind != "json")
        case _:
            raise no_table("the file is none of the kinds that hold a table")


def _of_parquet(opened: Any, zones: Mapping[str, str] | None = None, zone: str | None = None) -> Table:
    files = [TableFile({}, lambda: contextlib.nullcontext(groups_of(opened)))]
    return Table(columns_of(opened), files, opened.metadata.num_rows, zones or {}, zone)


def _of_arrow(file: IO[bytes]) -> Table:
    opened = pa.ipc.open_file(file)

    def group(number: int) -> Group:
        def read(wanted: Collection[str]) -> Iterator[pl.DataFrame]:
            found = from_arrow(pa.Table.from_batches([opened.get_batch(number)]))
            yield found.select(name for name in found.columns if name in wanted)

        return Group(None, {}, read)

    groups = [group(number) for number in range(opened.num_record_batches)]
    return _of_groups(from_arrow(opened.schema.empty_table()), groups)


def _of_csv(file: IO[bytes]) -> Table:
    def reader() -> Any:
        file.seek(0)
        return csv.open_csv(file, csv.ReadOptions(use_threads=False, block_size=_CSV_BYTES))

    def read(wanted: Collection[str]) -> Iterator[pl.DataFrame]:
        for batch in reader():
            found = from_arrow(pa.Table.from_batches([batch]))
            yield found.select(name for name in found.columns if name in wanted)

    columns = from_arrow(reader().schema.empty_table())
    return _of_groups(columns, [Group(None, {}, read)])


def _of_json(file: IO[bytes], *, is_lines: bool) -> Table:
    content = file.read(_MOST_JSON_BYTES + 1)
    if len(content) > _MOST_JSON_BYTES:
        raise no_table(
            f"the file has more than {_MOST_JSON_BYTES} bytes of JSON, which can only be read whole"
        )
    if is_lines:
        rows = [json.loads(line) for line in io.BytesIO(content) if line.strip()]
    else:
        rows = json.loads(content)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise no_table("the file holds JSON, but no list of objects")
    table = pl.DataFrame(rows, infer_schema_length=None)

    def read(wanted: Collection[str]) -> Iterator[pl.DataFrame]:
        yield table.select(name for name in table.columns if name in wanted)

    return _of_groups(table.clear(), [Group(table.height, {}, read)], table.height)


def _of_groups(columns: pl.DataFrame, groups: Sequence[Group], rows: int | None = None) -> Table:
    return Table(columns, [TableFile({}, lambda: contextlib.nullcontext(groups))], rows)
