"""The two kinds of folders that data is copied between.

User code has written there, so in a folder of this machine no link is followed, neither to read nor to write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from optaic import storage

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_PRIVATE = 0o700  # as workers make the folders of tenants
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NotPlainError(OSError):
    """There is a link, a device, or a file with several names."""


class Folder(Protocol):
    """A folder with files below it, each named by its path in it."""

    uri: str

    def list_files(self) -> tuple[dict[str, tuple[int, str]], list[str]]:
        """Return the size and the mark of each file, another mark if its content is another, and what is no plain file."""
        ...

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading.

        Raises:
            FileNotFoundError: it is gone.
            OSError: it cannot be read, or is no plain file.
        """
        ...

    def write(self, path: str, content: IO[bytes]) -> None:
        """Put a file in place at once, also over another; raises OSError."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; raises OSError."""
        ...

    def remove_all(self) -> None:
        """Remove the folder with all that is in it; of links only the links. Where it is not, nothing is done; raises OSError."""
        ...


def open_folder(uri: str) -> Folder:
    """Return a folder of this machine or of an object store."""
    return _Objects(uri) if storage.is_remote(uri) else _Files(uri)


def overlap(first: str, second: str) -> bool:
    """Return whether two folders of this machine are one, or one lies within the other: by whatever links and mounts.

    Raises:
        OSError: it cannot be seen.
    """
    if storage.is_remote(first) or storage.is_remote(second):
        return False
    places = [Path(storage.local_place(uri)).resolve() for uri in (first, second)]
    return any(
        _are_one(outer, folder)
        for outer, inner in (places, reversed(places))
        for folder in (inner, *inner.parents)
    )


def _are_one(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False


class _Objects:
    """A folder of an object store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")

    def list_files(self) -> tuple[dict[str, tuple[int, str]], list[str]]:
        return {each.path: (each.size, each.mark) for each in storage.list_files(self.uri)}, []

    def open(self, path: str) -> IO[bytes]:
        return storage.open_file(f"{self.uri}/{path}")

    def write(self, path: str, content: IO[bytes]) -> None:
        storage.fill(f"{self.uri}/{path}", content)

    def remove(self, path: str) -> None:
        storage.remove_file(f"{self.uri}/{path}")

    def remove_all(self) -> None:
        storage.remove_below(self.uri)


class _Files:
    """A folder of this machine."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._top = Path(storage.local_place(uri))

    def list_files(self) -> tuple[dict[str, tuple[int, str]], list[str]]:
        found: dict[str, tuple[int, str]] = {}
        others: list[str] = []
        if not self._top.exists():
            return found, others
        for folder, folders, files, here in os.fwalk(self._top, onerror=_refuse, follow_symlinks=False):
            below = Path(folder).relative_to(self._top)
            for name in (*folders, *files):
                path = (below / name).as_posix()
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    status = os.stat(name, dir_fd=here, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                        found[path] = (status.st_size, f"{status.st_ino}-{status.st_mtime_ns}")
                    elif not stat.S_ISDIR(status.st_mode):
                        others.append(path)
        return found, others

    def open(self, path: str) -> IO[bytes]:
        with self._opened(path, is_new=False) as (folder, name), _plainly(path):
            file = os.open(name, _PLAIN, dir_fd=folder)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(file)
            raise NotPlainError(f"{self.uri}/{path} is no plain file with one name")
        return os.fdopen(file, "rb")

    def write(self, path: str, content: IO[bytes]) -> None:
        with self._opened(path, is_new=True) as (folder, name):
            draft = f"{uuid.uuid4()}-moved"
            file = os.open(draft, _NEW, 0o666, dir_fd=folder)
            try:
                with os.fdopen(file, "wb") as stream:
                    shutil.copyfileobj(content, stream)
                    _give_to_owner_of(folder, stream.fileno())
                    stream.flush()
                    os.fsync(
                        stream.fileno()
                    )  # the source may be removed before the machine would have written it
                os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(draft, dir_fd=folder)
                raise
            os.fsync(folder)

    def remove(self, path: str) -> None:
        with self._opened(path, is_new=False) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def remove_all(self) -> None:
        if self._top.is_symlink():
            raise NotPlainError(f"{self._top} is a link to {self._top.resolve()}; remove it by hand")
        if self._top.exists():
            shutil.rmtree(self._top)

    @contextlib.contextmanager
    def _opened(self, path: str, *, is_new: bool) -> Iterator[tuple[int, str]]:
        """Open the folder of a file, which is made if it may be new, and yield it with the file's name."""
        *folders, name = PurePosixPath(path).parts
        if is_new:
            self._top.mkdir(_PRIVATE, parents=True, exist_ok=True)  # those above it have the umask's mode
        with contextlib.ExitStack() as stack:
            here = os.open(self._top, os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, here)
            for part in folders:
                above = here
                if is_new:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=above)
                with _plainly(path):
                    here = os.open(part, _FOLDER, dir_fd=above)
                stack.callback(os.close, here)
                if is_new and os.fstat(here).st_uid == os.geteuid():
                    _give_to_owner_of(above, here)
            yield here, name


def _refuse(error: OSError) -> None:
    """Raise an error of listing, so that no folder is left out in silence; one that is gone is none."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _give_to_owner_of(folder: int, file: int) -> None:
    """Give what root has made to the owner of the folder that it is in: what lies in a tenant's folder is the tenant's."""
    if os.geteuid() == 0:
        owner = os.fstat(folder)
        os.fchown(file, owner.st_uid, owner.st_gid)


@contextlib.contextmanager
def _plainly(path: str) -> Iterator[None]:
    """Convert the error of a link, which is not followed.

    Raises:
        NotPlainError: there is one.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotPlainError(f"{path} is a link, or lies below one") from None
        raise
