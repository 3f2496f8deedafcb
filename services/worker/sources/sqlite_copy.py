"""Copy a SQLite database that a process was handed, since SQLite opens databases by their names only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optaic.plugins import SourceNotFound, SourceUnavailable
from worker.sources.files import OpenFile, open_file
from worker.sources.policy import SourcePolicy

# What readers lock, and what a writer locks before it writes: start and length, from SQLite's file format.
_SHARED, _RESERVED = (0x40000002, 510), (0x40000001, 1)
_SALTS = (8, 16)  # length and place of what a log says of its round of writing
_CHUNK = 1 << 30
_POLL_SECONDS = 0.05


@contextmanager
def copy_database(policy: SourcePolicy, file: OpenFile, shown: str) -> Iterator[tuple[str, int]]:
    """Copy a database with its logs to a folder of this process; yield the path of the copy and a descriptor of it.

    Raises:
        SourceUnavailable: it is too large, or a writer does not let go of it in time.
        SourceNotAllowed: a log beside it is no ordinary file.
    """
    if file.size > policy.max_bytes:
        raise SourceUnavailable(
            f"{shown} has {file.size} bytes, more than OPTAIC_SOURCE_MAX_BYTES of the worker allows ({policy.max_bytes})"
        )
    with tempfile.TemporaryDirectory(prefix="sqlite-") as folder, contextlib.ExitStack() as stack:
        path = str(Path(folder) / "copy.db")
        limit = time.monotonic() + policy.connect_seconds
        while not _copy_unchanged(policy, file, shown, path):
            for left in Path(folder).iterdir():
                left.unlink()
            if time.monotonic() > limit:
                raise SourceUnavailable(
                    f"{shown} cannot be read: another program is writing to it; run again later"
                )
            time.sleep(_POLL_SECONDS)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        yield path, descriptor


def _copy_unchanged(policy: SourcePolicy, file: OpenFile, shown: str, path: str) -> bool:
    """Copy the database, then its logs; False: a writer was at work, so that the parts may not belong together."""
    with contextlib.ExitStack() as stack:
        if not _lock(file.descriptor, *_SHARED):
            return False
        stack.callback(fcntl.lockf, file.descriptor, fcntl.LOCK_UN)
        # The journal of a writer that has not begun to write changes nothing yet; one without a writer is to be undone.
        sides: dict[str, OpenFile] = {}
        for side in ("-wal", "-journal") if _lock(file.descriptor, *_RESERVED) else ("-wal",):
            with contextlib.suppress(SourceNotFound):
                sides[side] = stack.enter_context(
                    open_file(policy, file.path + side, field="url", shown=f"{shown}{side}")
                )
        before = {side: os.pread(each.descriptor, *_SALTS) for side, each in sides.items()}
        _copy(file.descriptor, path)
        for side, each in sides.items():
            _copy(each.descriptor, path + side)
        # A log that was begun anew in between no longer has what was moved from it into the database.
        return all(os.pread(each.descriptor, *_SALTS) == before[side] for side, each in sides.items())


def _copy(source: int, path: str) -> None:
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        offset = 0
        while sent := os.sendfile(target, source, offset, _CHUNK):
            offset += sent
    finally:
        os.close(target)


def _lock(descriptor: int, start: int, length: int) -> bool:
    """Lock a part of a database as its readers do; False: a writer has it. The lock ends with the descriptor."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
    except OSError as error:
        # On some disks there are no locks; then no writer has one either.
        return error.errno not in {errno.EACCES, errno.EAGAIN}
    return True
