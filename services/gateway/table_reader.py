"""Read one table in a process of its own (`python -m gateway.table_reader`): a file that is made to harm ends this process only.

The job comes as JSON on stdin. The answer is a line of JSON, and then what it says is sent. It calls no service, knows no caller, and
writes no file.
"""

from __future__ import annotations

import functools
import json
import resource
import sys
import time
from collections.abc import Mapping
from datetime import date
from typing import IO, TYPE_CHECKING, Any

from gateway import files
from optaic import storage

if TYPE_CHECKING:
    from optaic.tables.places import Places
    from optaic.tables.table import Table


def main() -> None:
    """Do one job."""
    job = json.load(sys.stdin)
    _limit(job)
    header, content = _answer(job)
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + content)
    sys.stdout.buffer.flush()


def _limit(job: Mapping[str, Any]) -> None:
    """Let this process take so much memory and processor time, and write no file."""
    for kind, most in (
        (resource.RLIMIT_AS, int(job["memory_bytes"])),
        (resource.RLIMIT_CPU, int(job["seconds"]) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def _answer(job: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the header and what follows it; every fault of the data becomes a reason."""
    try:
        # Only now: what these need counts against the limits.
        import pyarrow as pa  # type: ignore[import-untyped] # noqa: PLC0415 - it ships no type information

        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        from optaic.tables.problems import TableError, not_readable  # noqa: PLC0415 - the same
    except (MemoryError, ImportError) as error:
        return _refusal("READER_FAILED", "", repr(error)), b""
    try:
        return _read(job)
    except TableError as error:
        return {**_refusal(error.reason, error.message), "field": error.field}, b""
    except MemoryError as error:
        return _refusal("READ_TOO_LARGE", "", repr(error)), b""
    except BaseException as error:  # noqa: BLE001 - each library has errors of its own, and one has panics that are no Exception
        return _refusal("DATA_NOT_READABLE", not_readable().message, repr(error)), b""


def _refusal(reason: str, message: str, cause: str = "") -> dict[str, Any]:
    return {"reason": reason, "message": message, "cause": cause[:1000]}


def _read(job: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    from optaic.tables.encoding import ENCODERS, columns_of  # noqa: PLC0415 - the limits come first
    from optaic.tables.rows import Position, names_of, read_page  # noqa: PLC0415 - the same
    from optaic.tables.statistics import summarize  # noqa: PLC0415 - the same
    from optaic.tables.table import Selection  # noqa: PLC0415 - the same

    if job["access"]:
        storage.install(storage.Access(**job["access"]))
    start, end = (date.fromisoformat(job[name]) if job[name] else None for name in ("start", "end"))
    wanted = Selection(job["columns"], job["entities"], start, end)
    over: float = time.monotonic() + float(job["scan_seconds"])

    def is_over() -> bool:
        return time.monotonic() >= over

    with _places(job["root"]) as places:
        table = _open(job, places)
        if job["is_statistics"]:
            found = summarize(table, wanted, int(job["most_rows"]), is_over)
            return {}, json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")
        encode = ENCODERS[job["media_type"]]
        sizes = (int(job["page_size"]), int(job["most_bytes"]))
        page = read_page(table, wanted, Position(*job["position"]), *sizes, encode, is_over)
        columns = columns_of(table.on_clocks(table.columns).select(names_of(table, wanted)))
    after = page.following
    return {
        "following": after and [after.file, after.group, after.row],
        "columns": columns,
        "total": table.rows if wanted == Selection(wanted.columns) else None,
    }, page.content


def _places(root: str) -> Places:
    from optaic.tables.places import Places  # noqa: PLC0415 - the limits come first

    return Places(functools.partial(files.file_below, root), functools.partial(files.list_below, root))


def _open(job: Mapping[str, Any], places: Places) -> Table:
    from optaic.tables.delta import open_delta  # noqa: PLC0415 - the limits come first
    from optaic.tables.problems import TableError  # noqa: PLC0415 - the same
    from optaic.tables.sources import open_file, open_parquet_version  # noqa: PLC0415 - the same

    uri = str(job["uri"])
    if job["store"] == "file":
        with places.open(uri) as file:
            if _size(file) != job["size"]:
                raise TableError("ARTIFACT_CORRUPT", "the file is not the one that the run wrote")
        return open_file(places, uri)
    opened = open_delta if job["store"] == "delta" else open_parquet_version
    try:
        return opened(places, uri, job["version"], job["timezone"])
    except FileNotFoundError:
        raise TableError(
            "VERSION_NOT_FOUND", "the data of the version is not there any more; restore its files"
        ) from None


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)


if __name__ == "__main__":
    main()
