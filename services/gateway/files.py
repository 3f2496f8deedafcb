"""Open files of runs: regular ones only, and never through a link, because whoever writes a run's folder may put links there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from typing import IO

from optaic import storage
from optaic.rules.locations import local_path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A pipe must not keep the thread until somebody writes.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWN_FOLDERS = 1  # below the folder of all data, the tenant's may be a link: an operator has made it
_LAST = 2  # offset from the end


class Opened:
    """A file that is read piece by piece; every method blocks."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def size(self) -> int:
        """Return its size."""
        end = self._file.seek(0, _LAST)
        self._file.seek(0)
        return end

    def seek(self, place: int) -> None:
        """Go to a place."""
        self._file.seek(place)

    def read(self, count: int) -> bytes:
        """Return the next bytes, and add them to the hash."""
        piece = self._file.read(count)
        self._hash.update(piece)
        return piece

    @property
    def sha256(self) -> str:
        """Return the hash of what was read."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close it."""
        self._file.close()


def open_below(root: str, uri: str) -> Opened:
    """Open the file at a URI below the folder of all data; raises as `file_below`."""
    return Opened(file_below(root, uri))


def file_below(root: str, uri: str) -> IO[bytes]:
    """Open the file at a URI below the folder of all data, as a plain file.

    Raises:
        OSError: It cannot be read, or is no regular file, or a link leads to it.
    """
    if storage.is_remote(uri):
        return storage.open_file(uri)
    return _open_local(local_path(root), uri.removeprefix(f"{root}/").split("/"))


def list_below(root: str, uri: str) -> list[str]:
    """Return the names of the files in the folder at a URI below the folder of all data; raises as `file_below`."""
    if storage.is_remote(uri):
        return [file.path for file in storage.list_files(uri) if "/" not in file.path]
    with contextlib.ExitStack() as folders:
        return os.listdir(_enter(folders, local_path(root), uri.removeprefix(f"{root}/").split("/")))


def _open_local(root: str, parts: list[str]) -> IO[bytes]:
    with contextlib.ExitStack() as folders:
        at = _enter(folders, root, parts[:-1])
        opened = os.open(parts[-1], _FILE, dir_fd=at)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError("it is no regular file")
    return os.fdopen(opened, "rb")


def _enter(folders: contextlib.ExitStack, root: str, parts: Sequence[str]) -> int:
    """Open one folder after the other, each in the one before."""
    at = _kept(folders, os.open(root, _FOLDER))
    for depth, part in enumerate(parts):
        flags = _FOLDER if depth < _OWN_FOLDERS else _FOLDER | os.O_NOFOLLOW
        at = _kept(folders, os.open(part, flags, dir_fd=at))
    return at


def _kept(folders: contextlib.ExitStack, descriptor: int) -> int:
    folders.callback(os.close, descriptor)
    return descriptor


def pieces(size: int, most: int) -> Iterator[int]:
    """Yield the sizes of the pieces in which so many bytes are read."""
    for start in range(0, size, most):
        yield min(most, size - start)
