"""Read and write files by their URI: of this machine, or of an object store.

Two ways, because they differ: a local file needs a draft and a rename to appear at once, its folder may be a link, and it has
an owner. An object has none of these, and appears at once. Local files go through the standard library, objects through obstore.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import IO

from optaic.rules.locations import local_path
from optaic.storage import local, remote, uploads
from optaic.storage.access import Access, current, found, install, installed, read_secret
from optaic.storage.errors import StorageUnavailableError
from optaic.storage.files import File
from optaic.storage.uploads import Upload

__all__ = [
    "Access",
    "File",
    "StorageUnavailableError",
    "Upload",
    "abort_upload",
    "create_file",
    "current",
    "exists",
    "fill",
    "found",
    "install",
    "installed",
    "is_remote",
    "list_files",
    "list_folders",
    "list_uploads",
    "local_place",
    "now_at",
    "open_file",
    "publish",
    "read",
    "read_secret",
    "remove_below",
    "remove_file",
    "remove_files",
    "replace",
    "sign",
    "size_of",
    "table_options",
    "write",
]


def is_remote(uri: str) -> bool:
    """Return whether a URI names no file of this machine."""
    return "://" in local_path(uri)


def local_place(uri: str) -> str:
    """Return the path of a local URI without a slash at its end."""
    return local_path(uri).rstrip("/")


def read(uri: str) -> bytes:
    """Read one file.

    Raises:
        OSError: it cannot be read.
    """
    return remote.read(uri) if is_remote(uri) else local.read(local_place(uri))


def open_file(uri: str) -> IO[bytes]:
    """Open one file for reading, piece by piece; raises as `read`."""
    return remote.open_file(uri) if is_remote(uri) else local.open_file(local_place(uri))


def create_file(uri: str) -> AbstractContextManager[IO[bytes]]:
    """Open one file for writing; folders are made. In an object store it appears at the end of the block.

    Raises:
        OSError: it cannot be written.
    """
    return remote.create_file(uri) if is_remote(uri) else local.create_file(local_place(uri))


def write(uri: str, content: bytes) -> None:
    """Write one file; raises as `create_file`."""
    with create_file(uri) as file:
        file.write(content)


def replace(uri: str, content: bytes) -> None:
    """Put one file in place at once, also over another; raises as `write`."""
    if is_remote(uri):
        remote.replace(uri, content)
    else:
        local.replace(local_place(uri), content)


def fill(uri: str, content: IO[bytes]) -> None:
    """Write one object of an object store from a file that is open, part by part; raises as `write`."""
    remote.fill(uri, content)


def publish(uri: str, content: bytes) -> bool:
    """Put one file in place at once where none is; return whether this was done. Of several writers the first one wins.

    Raises:
        OSError: it cannot be written.
    """
    return remote.publish(uri, content) if is_remote(uri) else local.publish(local_place(uri), content)


def exists(uri: str) -> bool:
    """Return whether there is a file or a folder.

    Raises:
        OSError: the place cannot be read.
    """
    return remote.exists(uri) if is_remote(uri) else local.exists(local_place(uri))


def list_files(uri: str) -> Iterator[File]:
    """Yield the files below a folder, at any depth; raises as `exists`."""
    return remote.list_files(uri) if is_remote(uri) else local.list_files(local_place(uri))


def list_folders(uri: str) -> list[str]:
    """Return the names of the folders in a folder; raises as `exists`."""
    return remote.list_folders(uri) if is_remote(uri) else local.list_folders(local_place(uri))


def now_at(uri: str) -> datetime:
    """Return the time that a file in a folder gets which is written now: by the clock of the place, not of this machine.

    Raises:
        OSError: the folder cannot be written.
    """
    return remote.now_at(uri) if is_remote(uri) else local.now_at(local_place(uri))


def size_of(uri: str) -> int | None:
    """Return the size of an object of an object store; None where there is none. Raises as `exists`."""
    return remote.size_of(uri)


def remove_file(uri: str) -> None:
    """Remove one file; where none is, nothing is done. Raises as `write`."""
    if is_remote(uri):
        remote.remove_file(uri)
    else:
        local.remove_file(local_place(uri))


def remove_files(uri: str, paths: Sequence[str]) -> None:
    """Remove some objects below a folder of an object store; raises as `write`, and then some may be gone."""
    remote.remove_files(uri, paths)


def remove_below(uri: str) -> None:
    """Remove all objects below a folder of an object store; raises as `write`."""
    remote.remove_below(uri)


def list_uploads(uri: str) -> Iterator[Upload]:
    """Yield the uploads in parts to objects below a folder of an object store which nobody has completed; raises as `exists`."""
    return uploads.list_uploads(uri)


def abort_upload(upload: Upload) -> None:
    """Have the store forget what such an upload has sent; raises as `write`."""
    uploads.abort_upload(upload)


def sign(access: Access, uri: str, lifetime: timedelta) -> str:
    """Return a URL with which its holder may read an object of an object store for some time, by an access.

    Raises:
        OSError: none can be made.
    """
    return remote.sign(access, uri, lifetime)


def table_options(uri: str) -> dict[str, str] | None:
    """Return the options with which deltalake reaches a table; None where it needs none."""
    return current().table_options if uri.startswith("s3://") else None
