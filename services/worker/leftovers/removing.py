"""Remove the leftovers of an instance, until something says stop, and the versions that were published too late."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from optaic import storage
from worker.leftovers import naming
from worker.leftovers.naming import Leftover
from worker.leftovers.places import Place

_EVER = datetime.max.replace(tzinfo=UTC)


def remove(
    place: Place,
    found: Sequence[Leftover],
    before: datetime,
    is_stopped: Callable[[], bool],
    note: Callable[[str], None],
) -> Iterator[Leftover]:
    """Remove leftovers, and yield those that are gone.

    Args:
        place: the folder of their instance.
        found: the leftovers.
        before: files that were changed since stay.
        is_stopped: is asked before each request; once it says yes, nothing more is removed.
        note: is told why a file cannot be removed.

    Raises:
        StorageUnavailableError: the object store refuses, or does not answer; the next requests would wait as long.
    """
    files = [each for each in found if not each.upload]
    for start in range(0, len(files), place.most_at_once):
        if is_stopped():
            return
        batch = files[start : start + place.most_at_once]
        try:
            gone = set(place.remove_together([each.path for each in batch], before))
        except storage.StorageUnavailableError:
            raise
        except OSError as error:
            note(f"{place.uri}/{batch[0].path}: {error}")
            continue
        removed = [each for each in batch if each.path in gone]
        _withdraw_late_versions(place, removed)
        yield from removed
    for each in found:
        if each.upload and not is_stopped():
            storage.abort_upload(storage.Upload(f"{place.uri}/{each.path}", each.upload, before))
            yield each


def _withdraw_late_versions(place: Place, gone: Sequence[Leftover]) -> None:
    """Remove the manifest of a version whose data was a leftover until its writer, after more than a day, published it.

    The writer looks after it has published whether its data is still there, so one of the two sees the other.
    """
    for each in gone:
        if not naming.VERSION_FILE.fullmatch(each.path.partition("/data/")[2]):
            continue
        folder, _, name = each.path.rpartition("/")
        manifest = f"{folder}/{naming.MANIFEST}"
        try:
            named = json.loads(place.read(manifest)).get("file")
        except (OSError, ValueError, AttributeError, RecursionError):
            continue  # there is none
        if named == name:
            place.remove(manifest, _EVER)
