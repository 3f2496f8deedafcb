"""Open what a run has written, in the worker's own process: plain files below the data root; no link of user code is followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from optaic import storage


class FileGoneError(Exception):
    """A file is gone, or is no plain file with one name; the message says which."""


@dataclass(frozen=True)
class WrittenFile:
    """One file, and the name that it was asked for under."""

    name: str
    size: int
    uri: str
    folder: Path | None = (
        None  # that it lies in, and above which no user code writes; None: not on this machine
    )

    def open(self) -> IO[bytes]:
        """Open it for reading.

        Raises:
            FileGoneError: it is gone, or no plain file.
            OSError: it cannot be read now.
        """
        if self.folder is None:
            try:
                return storage.open_file(self.uri)
            except FileNotFoundError as error:
                raise FileGoneError(str(error)) from None
        return _open_plainly(Path(self.uri), self.folder)


def list_files(named: Mapping[str, str], most: int, folder: str = "") -> list[WrittenFile]:
    """Return the files at some URIs, and those below the folders among them, by their names.

    Args:
        named: URIs by their names.
        most: so many files are wanted; if there are more, one more than that is returned.
        folder: the URI of the folder that all of them are in, and above which no user code writes; without one, each is directly
            in such a folder.

    Raises:
        FileGoneError: one of them does not exist, or is no plain file and no folder.
        OSError: something cannot be listed.
    """
    within = Path(storage.local_place(folder)) if folder else None
    found = (each for name, uri in sorted(named.items()) for each in _list(name, uri, within))
    return list(islice(found, most + 1))


def _list(name: str, uri: str, within: Path | None) -> Iterator[WrittenFile]:
    if storage.is_remote(uri):
        yield from _list_objects(name, uri)
        return
    top = Path(storage.local_place(uri))
    within = within or top.parent
    try:
        status = top.lstat()
    except FileNotFoundError:
        raise FileGoneError(f"{uri} is gone") from None
    if stat.S_ISREG(status.st_mode):
        yield WrittenFile(name, status.st_size, str(top), within)
        return
    if not stat.S_ISDIR(status.st_mode):  # to open a pipe would wait for its writer
        raise FileGoneError(f"{uri} is no plain file and no folder")
    for folder, _, names, here in os.fwalk(top, follow_symlinks=False):
        for each in sorted(names):
            status = os.stat(each, dir_fd=here, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                place = Path(folder) / each
                below = place.relative_to(top).as_posix()
                yield WrittenFile(f"{name}/{below}", status.st_size, str(place), within)


def _list_objects(name: str, uri: str) -> Iterator[WrittenFile]:
    """Yield the objects below a URI, or the one that it names."""
    is_folder = False
    for each in storage.list_files(uri):
        is_folder = True
        yield WrittenFile(f"{name}/{each.path}", each.size, f"{uri.rstrip('/')}/{each.path}")
    if is_folder:
        return
    if (size := storage.size_of(uri)) is None:
        raise FileGoneError(f"{uri} is gone")
    yield WrittenFile(name, size, uri)


def _open_plainly(path: Path, folder: Path) -> IO[bytes]:
    """Open a plain file with one name; nothing between it and the folder may be a link."""
    if path.parent.resolve() != folder.resolve() / path.parent.relative_to(folder):
        raise FileGoneError(f"{path} lies below a link")
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise FileGoneError(f"{path} is gone") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileGoneError(f"{path} is a link") from None
        raise
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(file)
        raise FileGoneError(f"{path} is no plain file with one name")
    return os.fdopen(file, "rb")
