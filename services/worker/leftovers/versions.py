"""The rule which files of a dataset's folder a version has, by the logs and manifests of the built-in stores; removes nothing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain

from optaic.storage import File
from worker.leftovers import naming
from worker.leftovers.delta_log import Known, Read, read_log
from worker.leftovers.errors import UnclearError
from worker.leftovers.naming import Leftover

_NO_VERSION = "no version has it"


def find_unowned(
    files: Sequence[File],
    listed: Iterable[str],
    read: Read,
    before: datetime,
    kept: Collection[str],
    known: Known,
) -> Iterator[Leftover]:
    """Yield the files of a dataset that no version has, and drafts; paths are below its folder.

    Args:
        files: its files, listed before it was known that no run of the flow is active.
        listed: the paths of its files, listed afterwards: whoever wrote before has published by now, or never will.
        read: reads one of its files.
        before: only files that were changed before this.
        kept: the versions that completed runs keep, as the store calls them.
        known: of the log of the table in this folder, from an earlier sweep.

    Raises:
        UnclearError: a version or an entry of a log is missing, or something has another form than the built-in stores write.
            What was yielded before, which are drafts, stands.
        OSError: a file cannot be read.
    """
    old = [file for file in files if file.changed < before]
    paths = set(listed)
    for file in old:
        if naming.is_draft(file.path):
            yield Leftover(file.path, file.size, "a draft")
    parts = [file for file in old if naming.PART.fullmatch(file.path)]
    by_version: dict[str, list[File]] = defaultdict(list)
    for file in old:
        if found := naming.VERSION_FILE.fullmatch(file.path):
            by_version[found["version"]].append(file)
    if not parts and not by_version:
        return
    newest = _check_kept(kept, paths)
    named = read_log(paths, read, newest, known) if parts else ()
    own = {_find_own(version, paths, read) for version in by_version}
    for file in (*parts, *chain.from_iterable(by_version.values())):
        if file.path not in named and file.path not in own:
            yield Leftover(file.path, file.size, _NO_VERSION)


def _check_kept(kept: Collection[str], paths: Collection[str]) -> int:
    """Return the newest version of a Delta table among those that runs keep; -1 where there is none.

    Raises:
        UnclearError: one of them has no manifest any more, or is of no built-in store.
    """
    newest = -1
    for version in sorted(kept):
        if naming.DELTA_VERSION.fullmatch(version):
            newest = max(newest, int(version))
        elif not naming.PARQUET_VERSION.fullmatch(version):
            raise UnclearError(
                f"a completed run has version {version[:100]!r}, which no built-in store names so"
            )
        elif f"{version}/{naming.MANIFEST}" not in paths:
            raise UnclearError(
                f"a completed run has version {version}, which has no manifest any more; restore {version}/{naming.MANIFEST}"
            )
    return newest


def _find_own(version: str, paths: Collection[str], read: Read) -> str:
    """Return the data file that the manifest of a version of the store `parquet` names; empty where it has no manifest.

    Raises:
        UnclearError: the manifest has another form, or names a file that is not there.
    """
    place = f"{version}/{naming.MANIFEST}"
    if place not in paths:
        return ""
    try:
        named = json.loads(read(place))["file"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UnclearError(f"{place} is no manifest") from None
    own = f"{version}/{named}"
    if own not in paths:
        raise UnclearError(f"{place} names the file {named}, which is not there; restore it")
    return own
