"""The rule which files of a dataset's folder a version has, by the logs and manifests of the built-in stores; removes nothing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from urllib.parse import unquote

from optaic.storage import File
from worker.leftovers import naming
from worker.leftovers.naming import Leftover

Read = Callable[[str], bytes]  # the content of a file below the folder
_READERS = 16
_NO_VERSION = "no version has it"


class UnclearError(Exception):
    """Which files versions have cannot be said, so none is a leftover; the message says why."""


def find_unowned(
    files: Sequence[File], listed: Iterable[str], read: Read, before: datetime
) -> Iterator[Leftover]:
    """Yield the files of a dataset that no version has, and drafts; paths are below its folder.

    Args:
        files: its files, listed before it was known that no run of the flow is active.
        listed: the paths of its files, listed afterwards: whoever wrote before has published by now, or never will.
        read: reads one of its files.
        before: only files that were changed before this.

    Raises:
        UnclearError: a log has gaps, or something has another form than the built-in stores write.
        OSError: a file cannot be read.
    """
    old = [file for file in files if file.changed < before]
    paths = set(listed)
    for file in old:
        if naming.is_draft(file.path):
            yield Leftover(file.path, file.size, "a draft")
    parts = [file for file in old if naming.PART.fullmatch(file.path)]
    if parts:
        known = _read_log(paths, read)
        yield from (Leftover(file.path, file.size, _NO_VERSION) for file in parts if file.path not in known)
    by_version: dict[str, list[File]] = defaultdict(list)
    for file in old:
        if found := naming.VERSION_FILE.fullmatch(file.path):
            by_version[found["version"]].append(file)
    for version, found_files in by_version.items():
        kept = find_manifest_file(version, paths, read)
        yield from (
            Leftover(file.path, file.size, _NO_VERSION)
            for file in found_files
            if kept is None or file.path != f"{version}/{kept}"
        )


def find_manifest_file(version: str, paths: Iterable[str], read: Read) -> str | None:
    """Return the data file that the manifest of a version of the store `parquet` names; None where it has no manifest.

    Raises:
        UnclearError: the manifest has another form, or names a file that is not there.
    """
    place = f"{version}/{naming.MANIFEST}"
    there = set(paths)
    if place not in there:
        return None
    try:
        named = json.loads(read(place))["file"]
    except (ValueError, TypeError, KeyError):
        raise UnclearError(f"{place} is no manifest") from None
    if f"{version}/{named}" not in there:
        raise UnclearError(f"{place} names the file {named}, which is not there")
    return str(named)


def _read_log(paths: set[str], read: Read) -> set[str]:
    """Return the files that any entry of the log of a Delta table has ever named; empty where there is no log.

    Raises:
        UnclearError: an entry is missing, or has another form.
    """
    numbered = {int(found[1]): path for path in paths if (found := naming.LOG_ENTRY.fullmatch(path))}
    if not numbered:
        if any(path.startswith(naming.LOG) for path in paths if not naming.is_draft(path)):
            raise UnclearError("the log of the table has no entries, but other files")
        return set()
    if max(numbered) != len(numbered) - 1:
        raise UnclearError("the log of the table has gaps; restore its entries")
    known: set[str] = set()
    with ThreadPoolExecutor(min(_READERS, len(numbered))) as pool:
        for path, content in zip(numbered.values(), pool.map(read, numbered.values()), strict=True):
            known.update(_list_named(path, content))
    return known


def _list_named(path: str, content: bytes) -> Iterator[str]:
    for line in content.splitlines():
        try:
            actions = json.loads(line)
            named = [action["path"] for kind, action in actions.items() if kind in {"add", "remove", "cdc"}]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UnclearError(f"{path} is no entry of a log") from None
        yield from map(unquote, named)
