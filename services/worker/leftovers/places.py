"""List, read and remove the files of an instance's folder, in a folder of this machine or in an object store.

In a folder user code may have put links and pipes: none is followed, opened or waited for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from optaic import storage
from optaic.rules.locations import instance_folder
from optaic.storage import File
from worker.locations import instance_uri
from worker.written_files import FileGoneError, WrittenFile

_LONGEST = 64 * 1024 * 1024  # of what is read: an entry of a log, a manifest
_MOST_AT_ONCE = 500  # objects that one request removes
_DEEPEST = 100  # folders in each other; each is open while what is below is listed
_RUNS = 3  # a file of a run has so many parts before its name: flow, `runs`, run


class Place:
    """The folder of an instance."""

    def __init__(self, data_root: str, tenant_id: str, instance_id: str) -> None:
        self.uri = instance_uri(data_root, tenant_id, instance_id)
        self._root = data_root
        self._below = instance_folder(tenant_id, instance_id).split("/")
        # So many files are removed together; in a folder each may fail for a reason of its own.
        self.most_at_once = _MOST_AT_ONCE if storage.is_remote(data_root) else 1
        self._path = None if storage.is_remote(data_root) else Path(storage.local_place(self.uri))

    def list_files(self, folder: str = "") -> list[File]:
        """Return the files below the folder, or one in it.

        Raises:
            OSError: it cannot be listed, or has folders in each other that are too many to follow.
        """
        if self._path is None:
            return list(storage.list_files(f"{self.uri}/{folder}".rstrip("/")))
        return list(_walk(self._path / folder))

    def read(self, path: str) -> bytes:
        """Read a file.

        Raises:
            OSError: it is gone, no plain file, too large, or cannot be read.
        """
        here = None if self._path is None else self._path
        place = f"{self.uri}/{path}" if here is None else str(here / path)
        try:
            with WrittenFile(path, 0, place, here).open() as file:
                content = file.read(_LONGEST + 1)
        except FileGoneError as error:
            raise OSError(str(error)) from None
        if len(content) > _LONGEST:
            raise OSError(f"{place} is larger than {_LONGEST} bytes")
        return content

    def remove(self, path: str, before: datetime) -> bool:
        """Remove a file, unless it has changed since; return whether it is gone now.

        Raises:
            OSError: it cannot be removed.
        """
        if self._path is None:
            storage.remove_file(f"{self.uri}/{path}")
            return True
        root = Path(storage.local_place(self._root))
        return _remove_safely(root, [*self._below, *path.split("/")], len(self._below) + _RUNS, before)

    def remove_together(self, paths: Sequence[str], before: datetime) -> Sequence[str]:
        """Remove files as `remove` does; return those that are gone now. If this fails, some of them may be gone, too."""
        if self._path is None:
            storage.remove_files(self.uri, paths)
            return paths
        return [path for path in paths if self.remove(path, before)]


def _walk(top: Path) -> Iterator[File]:
    for folder, _, names, here in os.fwalk(top, follow_symlinks=False, onerror=_refuse):
        if len(Path(folder).relative_to(top).parts) > _DEEPEST:
            raise OSError(f"{top} has more than {_DEEPEST} folders in each other")
        for name in sorted(names):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
                changed = datetime.fromtimestamp(status.st_mtime, UTC)
                yield File((Path(folder) / name).relative_to(top).as_posix(), status.st_size, changed)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # another process has just removed it
        raise error


def _remove_safely(root: Path, parts: Sequence[str], kept: int, before: datetime) -> bool:
    """Remove a file below a root, and the folders of a run that are empty then; no link below the root is followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        opened = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        stack.callback(os.close, opened[0])
        try:
            for part in parts[:-1]:
                opened.append(os.open(part, flags, dir_fd=opened[-1]))
                stack.callback(os.close, opened[-1])
            status = os.stat(parts[-1], dir_fd=opened[-1], follow_symlinks=False)
            if datetime.fromtimestamp(status.st_mtime, UTC) >= before:
                return False
            os.unlink(parts[-1], dir_fd=opened[-1])
        except FileNotFoundError:
            return True
        if parts[kept - 2] == "runs":
            with contextlib.suppress(OSError):  # it is not empty
                for depth in range(len(parts) - 2, kept - 2, -1):
                    os.rmdir(parts[depth], dir_fd=opened[depth])
        return True
