"""Keep the digests of a Delta table's days in its folder, so that those of unchanged days are not computed again."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import json

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from optaic import storage
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
        content["files"] = _hash_files(DeltaTable(uri, version, storage.table_options(uri)))
        storage.replace(_place(uri, version), json.dumps(content).encode())
        if base_version is not None and base_version != version:
            storage.remove_file(_place(uri, base_version))


def find_days(uri: str, snapshot: DeltaTable) -> DayDigests | None:
    """Return the digests of the days of a version; None where they were not kept, or are not of its files."""
    with contextlib.suppress(*_ERRORS):
        content = json.loads(storage.read(_place(uri, snapshot.version())))
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


def _place(uri: str, version: int) -> str:
    return f"{uri}/_days/{version}.json"  # Delta ignores folders with an underscore


def _hash_files(snapshot: DeltaTable) -> str:
    """Return the SHA-256 of the names of a version's files, which no other content has."""
    return hashlib.sha256("\n".join(sorted(snapshot.file_uris())).encode()).hexdigest()
