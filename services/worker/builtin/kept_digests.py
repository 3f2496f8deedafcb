"""Keep the digests of a Delta table's days in its folder, so that those of unchanged days are not computed again."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import json
import uuid

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import fs

from worker.builtin.day_digests import DayDigests

_FORMAT = 1
_SIZE = hashlib.sha256().digest_size
# Whatever goes wrong here costs time, but changes no result: the digests are computed from the rows then.
_ERRORS = (OSError, ValueError, KeyError, TypeError, DeltaError, pa.ArrowException)


def keep_days(uri: str, version: int, days: DayDigests, base_version: int | None) -> None:
    """Keep the digests of the days of a version that was just written; those of its base are not needed any more."""
    if not days.has_days or days.has_times or None in days.by_day:
        return
    content = {
        "format": _FORMAT,
        "schema": days.schema,
        "dates": [day.toordinal() for day in days.by_day if day is not None],
        "digests": base64.b64encode(b"".join(days.by_day.values())).decode(),
    }
    with contextlib.suppress(*_ERRORS):
        content["files"] = _hash_files(DeltaTable(uri, version=version))
        files, folder = _open(uri)
        files.create_dir(folder)
        draft = f"{folder}/{uuid.uuid4()}"
        with files.open_output_stream(draft) as stream:
            stream.write(json.dumps(content).encode())
        files.move(draft, f"{folder}/{version}.json")
        if base_version is not None and base_version != version:
            files.delete_file(f"{folder}/{base_version}.json")


def find_days(uri: str, snapshot: DeltaTable) -> DayDigests | None:
    """Return the digests of the days of a version; None where they were not kept, or are not of its files."""
    with contextlib.suppress(*_ERRORS):
        files, folder = _open(uri)
        with files.open_input_stream(f"{folder}/{snapshot.version()}.json") as stream:
            content = json.loads(stream.read())
        digests = base64.b64decode(content["digests"], validate=True)
        dates = [dt.date.fromordinal(each) for each in content["dates"]]
        is_right = content["format"] == _FORMAT and content["files"] == _hash_files(snapshot)
        if is_right and len(digests) == _SIZE * len(dates):
            places = range(0, len(digests), _SIZE)
            by_day: dict[dt.date | None, bytes] = {
                day: digests[place : place + _SIZE] for day, place in zip(dates, places, strict=True)
            }
            return DayDigests(content["schema"], has_days=True, has_times=False, by_day=by_day)
    return None


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    files, place = fs.FileSystem.from_uri(uri)
    return files, f"{place}/_days"  # Delta ignores folders with an underscore


def _hash_files(snapshot: DeltaTable) -> str:
    """Return the SHA-256 of the names of a version's files, which no other content has."""
    return hashlib.sha256("\n".join(sorted(snapshot.file_uris())).encode()).hexdigest()
