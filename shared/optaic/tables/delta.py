"""One version of a Delta table, found from its log; the log is not trusted, so none of its paths may leave the table's folder.

The log is read here, and not by a library, because a library would follow links and open any place that a log names.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import polars as pl

from optaic.rules.columns import DATE, ENTITY
from optaic.tables.parquet import groups_of, open_parquet
from optaic.tables.places import Places
from optaic.tables.problems import TableError, not_read_here
from optaic.tables.table import Bounds, Group, Table, TableFile

_VERSION = re.compile(r"[0-9]{1,18}")
_COMMIT = re.compile(r"([0-9]{20})\.json")
_CHECKPOINT = re.compile(r"([0-9]{20})\.checkpoint\.parquet")
_LOG = "_delta_log"
_MOST_BYTES = 64 * 1024 * 1024  # of one commit
_FEATURES = frozenset({"timestampNtz"})  # of readers
_READER_WITH_FEATURES = 3
_FORBIDDEN = re.compile(r"[\\%?#\0]|::|://")
_ZONE = "optaic.zone"  # in a field's metadata, as the store `delta` writes it
_DECIMAL = re.compile(r"decimal\((\d{1,2}),(\d{1,2})\)")
_KINDS: Mapping[str, Any] = {
    "string": pl.String,
    "long": pl.Int64,
    "integer": pl.Int32,
    "short": pl.Int16,
    "byte": pl.Int8,
    "float": pl.Float32,
    "double": pl.Float64,
    "boolean": pl.Boolean,
    "binary": pl.Binary,
    "date": pl.Date,
    "timestamp": pl.Datetime("us", "UTC"),
    "timestamp_ntz": pl.Datetime("us"),
}


def open_delta(places: Places, uri: str, version: str, timezone: str) -> Table:
    """Return one version of a table.

    Raises:
        TableError: VERSION_NOT_FOUND, STORE_NOT_READ_HERE, DATA_NOT_READABLE: a path leaves the table's folder.
        OSError: The log cannot be read.
        ValueError: The log is none.
    """
    if not _VERSION.fullmatch(version):
        raise _no_version()
    schema, added = _replay(_actions(places, uri, int(version)))
    fields = json.loads(schema)["fields"]
    files = sorted((_file(places, uri, action) for action in added), key=lambda each: each[:2])
    counts = [count for _, _, count, _ in files]
    return Table(
        pl.DataFrame(schema={each["name"]: _kind_of(each["type"]) for each in fields}),
        [file for _, _, _, file in files],
        None if None in counts else sum(count or 0 for count in counts),
        {each["name"]: str(each["metadata"][_ZONE]) for each in fields if _ZONE in each["metadata"]},
        timezone or "UTC",
    )


def _actions(places: Places, uri: str, version: int) -> Iterator[dict[str, Any]]:
    """Yield the actions that lead to a version: those of the last checkpoint before it, and of each commit since."""
    names = places.list(f"{uri}/{_LOG}")
    commits = {int(found[1]) for name in names if (found := _COMMIT.fullmatch(name))}
    kept = {int(found[1]) for name in names if (found := _CHECKPOINT.fullmatch(name))}
    last = max((number for number in kept if number <= version), default=-1)
    needed = range(last + 1, version + 1)
    if not commits.issuperset(needed):
        raise _no_version()
    if last >= 0:
        with places.open(f"{uri}/{_LOG}/{last:020}.checkpoint.parquet") as file:
            opened = open_parquet(file)
            for batch in opened.iter_batches(columns=["add", "metaData", "protocol"], use_threads=False):
                yield from batch.to_pylist()
    for number in needed:
        for line in places.read(f"{uri}/{_LOG}/{number:020}.json", _MOST_BYTES).splitlines():
            yield json.loads(line)


def _replay(actions: Iterable[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """Return the schema and the files after all actions."""
    schema, files = "", dict[str, dict[str, Any]]()
    for action in actions:
        if protocol := action.get("protocol"):
            _check_protocol(protocol)
        if metadata := action.get("metaData"):
            if metadata.get("partitionColumns"):
                raise not_read_here("the Delta table is partitioned")
            schema = metadata["schemaString"]
        if removed := action.get("remove"):
            files.pop(removed["path"], None)
        if added := action.get("add"):
            if added.get("deletionVector"):
                raise not_read_here("the Delta table has deletion vectors")
            files[added["path"]] = added
    if not schema:
        raise ValueError("the log has no schema")
    return schema, list(files.values())


def _check_protocol(protocol: Mapping[str, Any]) -> None:
    number, features = int(protocol["minReaderVersion"]), frozenset(protocol.get("readerFeatures") or ())
    if number > 1 and (number != _READER_WITH_FEATURES or features - _FEATURES):
        needs = ", ".join(sorted(features - _FEATURES)) or f"version {number}"
        raise not_read_here(f"the Delta table needs a reader with {needs[:200]}")


def _file(places: Places, uri: str, added: Mapping[str, Any]) -> tuple[str, str, int | None, TableFile]:
    """Return the order of a file among the others, its rows where they are counted, and the file."""
    path = unquote(added["path"])
    if _FORBIDDEN.search(path) or {"", ".", ".."}.intersection(path.split("/")):
        raise TableError(
            "DATA_NOT_READABLE", "the log of the table names a file outside of the table's folder"
        )
    stats = json.loads(added.get("stats") or "{}")
    bounds = {name: _bounds(stats, name) for name in (DATE, ENTITY)}

    @contextlib.contextmanager
    def opened() -> Iterator[Sequence[Group]]:
        with places.open(f"{uri}/{path}") as file:
            yield groups_of(open_parquet(file))

    first = stats.get("minValues", {}).get(DATE)
    count = stats.get("numRecords")
    return str(first or ""), path, None if count is None else int(count), TableFile(bounds, opened)


def _bounds(stats: Mapping[str, Any], name: str) -> Bounds:
    """Return the smallest and the largest value of a column; a text may be cut, so it bounds nothing from above."""
    if name != DATE:
        return None, None
    found = [stats.get(which, {}).get(name) for which in ("minValues", "maxValues")]
    if not all(isinstance(each, str) for each in found):
        return None, None
    first, last = (dt.date.fromisoformat(each[:10]) for each in found)
    return first, last


def _kind_of(given: Any) -> Any:
    """Return the type of a column."""
    if isinstance(given, str):
        if found := _DECIMAL.fullmatch(given):
            return pl.Decimal(int(found[1]), int(found[2]))
        if given in _KINDS:
            return _KINDS[given]
        raise not_read_here(f"the Delta table has a column of the type {given[:50]}")
    match given["type"]:
        case "array":
            return pl.List(_kind_of(given["elementType"]))
        case "struct":
            return pl.Struct({each["name"]: _kind_of(each["type"]) for each in given["fields"]})
        case "map":
            entry = {"key": _kind_of(given["keyType"]), "value": _kind_of(given["valueType"])}
            return pl.List(pl.Struct(entry))
        case other:
            raise not_read_here(f"the Delta table has a column of the type {str(other)[:50]}")


def _no_version() -> TableError:
    return TableError(
        "VERSION_NOT_FOUND",
        "the table has no such version any more; restore its files, or read another version",
    )
