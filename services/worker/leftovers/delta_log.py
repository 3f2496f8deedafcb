"""The log of a Delta table: find out whether all of it is there, and which data files its entries have ever named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import unquote

from worker.leftovers import naming
from worker.leftovers.errors import UnclearError

Read = Callable[[str], bytes]  # the content of a file below the folder
_READERS = 16
# What an entry that is no JSON, or other JSON than an entry of a log, makes the reader raise.
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass
class Known:
    """The part of a log that was read; it stays true while its last entry does, because tables never change an entry."""

    entries: int = 0  # so many of them, from the first
    parts: set[str] = field(default_factory=set)  # the data files that these name
    last: bytes = b""  # the SHA-256 of the last of them


def read_log(paths: Collection[str], read: Read, newest: int, known: Known) -> Collection[str]:
    """Return the data files that any entry has ever named; none where there is no log.

    Args:
        paths: of all files of the table.
        read: reads one of them.
        newest: the newest version that is known to have been committed; -1: none is.
        known: of an earlier reading; what is read now is added.

    Raises:
        UnclearError: an entry is missing, or has another form.
        OSError: an entry cannot be read.
    """
    entries = {int(found[1]): path for path in paths if (found := naming.LOG_ENTRY.fullmatch(path))}
    last = max(entries, default=-1)
    if len(entries) != last + 1:
        raise UnclearError("the log of the table has gaps; restore its entries")
    committed = max(newest, known.entries - 1, _find_newest(paths, read))
    if committed > last:
        there = f"ends with entry {last}" if entries else "has no entries"
        raise UnclearError(
            f"the log of the table {there}, but version {committed} was committed; restore its entries"
        )
    if not entries and any(path.startswith(naming.LOG) and not naming.is_draft(path) for path in paths):
        raise UnclearError("the log of the table has no entries, but other files; restore its entries")
    first = known.entries
    if first and _digest(read(entries[first - 1])) != known.last:
        first = 0  # an older state of the table was restored and written on
    unread = [entries[number] for number in range(first, last + 1)]
    found_parts: set[str] = set()
    newest_read = known.last
    with ThreadPoolExecutor(_READERS) as pool:
        for path, content in zip(unread, pool.map(read, unread), strict=True):
            found_parts.update(filter(naming.PART.fullmatch, _list_named(path, content)))
            newest_read = _digest(content)
    known.parts |= found_parts
    known.entries, known.last = last + 1, newest_read
    return known.parts


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _find_newest(paths: Collection[str], read: Read) -> int:
    """Return the newest version that any file of the log names: its checkpoints outlive entries that are lost."""
    numbers = [
        int(number)
        for path in paths
        if path.startswith(naming.LOG) and not naming.is_draft(path)
        for number in naming.LOG_NUMBER.findall(path)
    ]
    if naming.LAST_CHECKPOINT in paths:
        try:
            numbers.append(int(json.loads(read(naming.LAST_CHECKPOINT))["version"]))
        except (*_MALFORMED, OverflowError):
            raise UnclearError(f"{naming.LAST_CHECKPOINT} names no version") from None
    return max(numbers, default=-1)


def _list_named(path: str, content: bytes) -> Iterator[str]:
    """Yield the files that an entry adds or removes."""
    lines = content.splitlines()
    try:
        entry = [action for line in lines for action in json.loads(line).items()]
        named = [unquote(action["path"]) for kind, action in entry if kind in {"add", "remove", "cdc"}]
    except _MALFORMED:
        raise UnclearError(f"{path} is no entry of a log") from None
    if not entry:
        raise UnclearError(f"{path} is empty")
    yield from named
