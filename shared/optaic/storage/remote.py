"""Read and write objects of an object store; the same operations as in `local`.

An object appears whole or not at all, so nothing is drafted and moved here.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import IO, TYPE_CHECKING, Any

from optaic.storage import access
from optaic.storage.errors import StorageUnavailableError
from optaic.storage.files import File

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PART_BYTES = 8 * 1024 * 1024  # of what is written in parts
_READ_BYTES = 1024 * 1024
_LONGEST_PROBLEM = 300
_CLOCK = ".clock"  # an object without a meaning, whose time is read


def read(uri: str) -> bytes:
    """Read an object."""
    store, path = _open(uri)
    with _explained(uri):
        return bytes(store.get(path).bytes())


def open_file(uri: str) -> IO[bytes]:
    """Open an object for reading, piece by piece."""
    import obstore  # noqa: PLC0415 - only whoever reads objects pays for it

    store, path = _open(uri)
    with _explained(uri):
        return io.BufferedReader(_Pieces(obstore.open_reader(store, path), uri), _READ_BYTES)


@contextlib.contextmanager
def create_file(uri: str) -> Iterator[IO[bytes]]:
    """Collect what is written, and write it as one object at the end; nothing if the block fails."""
    collected = io.BytesIO()
    yield collected
    replace(uri, collected.getbuffer())


def replace(uri: str, content: bytes | memoryview) -> None:
    """Write an object."""
    store, path = _open(uri)
    with _explained(uri):
        store.put(path, content, chunk_size=_PART_BYTES)


def fill(uri: str, content: IO[bytes]) -> None:
    """Write an object from a file that is open, part by part."""
    store, path = _open(uri)
    with _explained(uri):
        store.put(path, content, chunk_size=_PART_BYTES)


def publish(uri: str, content: bytes) -> bool:
    """Write an object where none is; return whether this was the first."""
    store, path = _open(uri)
    try:
        with _explained(uri):
            store.put(path, content, mode="create")
    except FileExistsError:
        return False
    return True


def exists(uri: str) -> bool:
    """Return whether there is an object, or one below."""
    store, path = _open(uri)
    with _explained(uri):
        if next(iter(store.list(path, chunk_size=1)), []):
            return True
    return size_of(uri) is not None


def size_of(uri: str) -> int | None:
    """Return the size of an object; None where there is none."""
    store, path = _open(uri)
    try:
        with _explained(uri):
            return store.head(path)["size"]
    except FileNotFoundError:
        return None


def list_files(uri: str) -> Iterator[File]:
    """Yield the objects below a folder, at any depth; none where nothing is."""
    store, path = _open(uri)
    with _explained(uri):
        for chunk in store.list(path):
            for each in chunk:
                name, mark = each["path"][len(path) :].lstrip("/"), each["e_tag"] or ""
                yield File(name, each["size"], each["last_modified"], mark)


def list_folders(uri: str) -> list[str]:
    """Return the names of the folders in a folder; none where nothing is."""
    store, path = _open(uri)
    with _explained(uri):
        found = store.list_with_delimiter(path)["common_prefixes"]
    return sorted(each.rstrip("/").rpartition("/")[2] for each in found)


def now_at(uri: str) -> datetime:
    """Return the time of an object that is written now; several may do so at once."""
    store, path = _open(f"{uri}/{_CLOCK}")
    with _explained(uri):
        store.put(path, b"")
        return store.head(path)["last_modified"]


def sign(given: access.Access, uri: str, lifetime: timedelta) -> str:
    """Return a URL with which its holder may read an object for some time; nothing is asked of the store."""
    import obstore  # noqa: PLC0415 - only whoever signs pays for it

    scheme, bucket, path = split(uri)
    with _explained(uri):
        signable: Any = _store(scheme, bucket, given)
        return obstore.sign(signable, "GET", path, lifetime)


def remove_file(uri: str) -> None:
    """Remove one object; where none is, nothing is done."""
    store, path = _open(uri)
    with _explained(uri):
        store.delete(path)


def remove_files(uri: str, paths: Sequence[str]) -> None:
    """Remove some objects below a folder in one request; where one is not, nothing is done."""
    store, folder = _open(uri)
    with _explained(uri):
        store.delete([f"{folder}/{path}" for path in paths])


def remove_below(uri: str) -> None:
    """Remove all objects below a folder; where none is, nothing is done."""
    store, path = _open(uri)
    with _explained(uri):
        for chunk in store.list(path):
            if names := [each["path"] for each in chunk]:
                store.delete(names)


def _open(uri: str) -> tuple[ObjectStore, str]:
    """Return the store of a URI's bucket, and the path in it."""
    scheme, bucket, path = split(uri)
    return _store(scheme, bucket, access.current()), path


def split(uri: str) -> tuple[str, str, str]:
    """Return the scheme, the bucket and the path of a URI; in a path each sign stands for itself, `?` and `#` too."""
    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    return scheme, bucket, path.strip("/")


@functools.lru_cache(maxsize=8)
def _store(scheme: str, bucket: str, given: access.Access) -> ObjectStore:
    from obstore import store  # noqa: PLC0415 - only whoever reads objects pays for it

    options: Any = {"client_options": given.client_options, "retry_config": given.retries}
    root = f"{scheme}://{bucket}"
    with _explained(root):
        if scheme == "s3":
            named: Any = given.options
            return store.S3Store(bucket, config=named, **options)
        return store.from_url(root, **options)


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Convert the errors of the library.

    Raises:
        FileExistsError: there is an object already.
        FileNotFoundError: there is none.
        StorageUnavailableError: the store does not answer, or refuses.
    """
    from obstore import exceptions  # noqa: PLC0415 - only whoever reads objects pays for it

    try:
        yield
    except exceptions.AlreadyExistsError:
        raise FileExistsError(f"{uri} exists already") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{uri} does not exist") from None
    except (exceptions.BaseError, ValueError, OSError) as error:
        if isinstance(error, StorageUnavailableError):
            raise
        said = " ".join(str(error).partition("Debug source")[0].split())
        raise StorageUnavailableError(f"{uri}: {said[:_LONGEST_PROBLEM]}") from None


class _Pieces(io.RawIOBase):
    """An object that is read piece by piece, as a file."""

    def __init__(self, reader: Any, uri: str) -> None:
        super().__init__()
        self._reader = reader
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _explained(self._uri):
            found = memoryview(self._reader.read(len(buffer)))
        buffer[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place: int = self._reader.seek(offset, whence)
        return place

    def tell(self) -> int:
        place: int = self._reader.tell()
        return place
