"""Read and write files of this machine; the same operations as in `remote`."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from optaic.storage.files import File

# The answers of file systems that have no hard links, or let this process make none.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})


def read(path: str) -> bytes:
    """Read a file."""
    return Path(path).read_bytes()


def open_file(path: str) -> IO[bytes]:
    """Open a file for reading."""
    return Path(path).open("rb")


def create_file(path: str) -> IO[bytes]:
    """Open a new file for writing; folders are made."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place.open("wb")


def replace(path: str, content: bytes) -> None:
    """Put a file in place at once: nobody sees a part of it."""
    os.replace(_draft(path, content), path)  # noqa: PTH105 - it says what it does


def publish(path: str, content: bytes) -> bool:
    """Put a file in place at once where none is; return whether this was the first."""
    draft = _draft(path, content)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_first(draft, Path(path))
    finally:
        draft.unlink(missing_ok=True)
    return True


def _draft(path: str, content: bytes) -> Path:
    """Write a content beside a file, under a name that nobody reads."""
    place = Path(path)
    draft = place.with_name(f"{uuid.uuid4()}-{place.name}")
    with create_file(str(draft)) as file:
        file.write(content)
    return draft


def _rename_first(draft: Path, place: Path) -> bool:
    """Rename a draft where no file is; return whether this was the first. A lock on the folder makes writers take turns.

    Raises:
        OSError: the file system has no locks either, so nothing is published.
    """
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if place.exists():
            return False
        os.replace(draft, place)  # noqa: PTH105 - it says what it does
        return True
    finally:
        os.close(folder)


def exists(path: str) -> bool:
    """Return whether there is a file or a folder."""
    return Path(path).exists()


def list_files(path: str) -> Iterator[File]:
    """Yield the files below a folder, at any depth; none where nothing is."""
    top = Path(path)
    for place in sorted(each for each in top.rglob("*") if each.is_file()):
        status = place.stat()
        changed = datetime.fromtimestamp(status.st_mtime, UTC)
        yield File(place.relative_to(top).as_posix(), status.st_size, changed)


def list_folders(path: str) -> list[str]:
    """Return the names of the folders in a folder; none where nothing is."""
    top = Path(path)
    return sorted(each.name for each in top.iterdir() if each.is_dir()) if top.is_dir() else []


def now_at(path: str) -> datetime:
    """Return the time of a new file in a folder; the file has no name that anybody could take."""
    with tempfile.TemporaryFile(dir=path) as file:
        return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)


def remove_file(path: str) -> None:
    """Remove one file; where none is, nothing is done."""
    Path(path).unlink(missing_ok=True)
