"""Open what a run has written for an upload: plain files below the data root; no link of user code is followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pyarrow import fs  # type: ignore[import-untyped] # it ships no type information

from optaic.rules.locations import local_path
from worker.telemetry.debts import GoneError

_MOST_FILES = 1_000
MOST_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class Upload:
    """One file, and its name in the system."""

    name: str
    size: int
    uri: str
    folder: Path | None = (
        None  # that it lies in, and above which no user code writes; None: not on this machine
    )

    def open(self) -> IO[bytes]:
        """Open it for reading.

        Raises:
            GoneError: it is gone, or no plain file.
            OSError: it cannot be read now.
        """
        if self.folder is None:
            files, place = fs.FileSystem.from_uri(self.uri)
            found: IO[bytes] = files.open_input_stream(place)
            return found
        return _open_plainly(Path(self.uri), self.folder)


def list_uploads(named: Mapping[str, str]) -> list[Upload]:
    """Return the files at some URIs, and those below the folders among them, by the names that they are to get.

    Raises:
        GoneError: there are too many or too large ones.
        OSError: something cannot be listed.
    """
    found = [upload for name, uri in sorted(named.items()) for upload in _list(name, uri)]
    size = sum(upload.size for upload in found)
    if len(found) > _MOST_FILES or size > MOST_BYTES:
        raise GoneError(
            f"{len(found)} files of {size} bytes; at most {_MOST_FILES} of {MOST_BYTES} bytes are delivered"
        )
    return found


def _list(name: str, uri: str) -> Iterator[Upload]:
    path = local_path(uri)
    if "://" in path:
        files, place = fs.FileSystem.from_uri(uri)
        for each in files.get_file_info(fs.FileSelector(place, recursive=True, allow_not_found=True)) or [
            files.get_file_info(place)
        ]:
            if each.type == fs.FileType.File:
                below = each.path[len(place) :].strip("/")
                scheme = uri[: uri.index("://") + 3]
                yield Upload(f"{name}/{below}" if below else name, each.size, f"{scheme}{each.path}")
        return
    top = Path(path)
    try:
        status = top.lstat()
    except FileNotFoundError:
        raise GoneError(f"{uri} is gone") from None
    if stat.S_ISREG(status.st_mode):
        yield Upload(name, status.st_size, str(top), top.parent)
        return
    for folder, _, names, here in os.fwalk(top, follow_symlinks=False):
        for each in sorted(names):
            status = os.stat(each, dir_fd=here, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                place = Path(folder) / each
                below = place.relative_to(top).as_posix()
                yield Upload(f"{name}/{below}", status.st_size, str(place), top.parent)


def _open_plainly(path: Path, folder: Path) -> IO[bytes]:
    """Open a plain file with one name; nothing between it and the folder may be a link."""
    if path.parent.resolve() != folder.resolve() / path.parent.relative_to(folder):
        raise GoneError(f"{path} lies below a link")
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise GoneError(f"{path} is gone") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise GoneError(f"{path} is a link") from None
        raise
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(file)
        raise GoneError(f"{path} is no plain file with one name")
    return os.fdopen(file, "rb")
