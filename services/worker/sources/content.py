"""Keep what a source contains out of errors, and unpack it within bounds; it opens no source."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from optaic.plugins import InvalidConfig, PluginError, SourceNotAllowed, UnparsableData

_ENDINGS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zip": "zip"}
_CHUNK = 1024 * 1024
_LZMA_MEMORY = 256 * 1024 * 1024  # bytes; the file says how much it wants


@contextmanager
def without_content(what: str) -> Iterator[None]:
    """Turn every error of a library into one that says what failed, but repeats nothing of what was read.

    Raises:
        UnparsableData: something else than an error of ours was raised.
    """
    try:
        yield
    except (PluginError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - each library has errors of its own, which quote what they read
        raise UnparsableData(f"{what} ({type(error).__name__})") from None


def too_large(what: str, most: int) -> SourceNotAllowed:
    """Build the error for a source of more bytes than the policy allows."""
    return SourceNotAllowed(f"{what} has more than {most} bytes; raise OPTAIC_SOURCE_MAX_BYTES to read it")


def unpack(content: bytes, compression: str, url: str, most: int) -> bytes:
    """Return the content of a compressed file; as it is if nothing is compressed.

    Raises:
        InvalidConfig: the compression is unknown.
        SourceNotAllowed: there would be more than `most` bytes.
        UnparsableData: it is not compressed so, or is cut off.
    """
    if compression == "infer":
        compression = next((name for ending, name in _ENDINGS.items() if url.lower().endswith(ending)), "")
    if compression in {"", "none"}:
        return content
    if compression not in _ENDINGS.values():
        raise InvalidConfig(
            f"storage_options.compression: must be infer, {', '.join(_ENDINGS.values())}, or absent"
        )
    try:
        unpacked = _unpack(content, compression, most, url)
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        NotImplementedError,
    ):
        raise UnparsableData(f"{url} is not a readable {compression} file") from None
    except RuntimeError:
        raise UnparsableData(f"{url} is an encrypted {compression} file") from None
    if len(unpacked) > most:
        raise too_large(f"{url}, unpacked,", most)
    return unpacked


def _unpack(content: bytes, compression: str, most: int, url: str) -> bytes:
    if compression == "xz":
        return _unpack_xz(content, most)
    source = io.BytesIO(content)
    if compression == "zip":
        with zipfile.ZipFile(source) as archive:
            names = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(names) != 1:
                raise UnparsableData(f"{url} holds {len(names)} files; an archive must hold one")
            with archive.open(names[0]) as stream:
                return stream.read(most + 1)
    with gzip.GzipFile(fileobj=source) if compression == "gzip" else bz2.BZ2File(source) as stream:
        return stream.read(most + 1)


def _unpack_xz(content: bytes, most: int) -> bytes:
    unpacked = bytearray()
    while content:
        unpacker = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
        while not unpacker.eof:
            if not content and unpacker.needs_input:
                raise EOFError
            unpacked += unpacker.decompress(content, _CHUNK)
            content = b""
            if len(unpacked) > most:
                return bytes(unpacked)
        content = unpacker.unused_data.lstrip(b"\0")  # streams may be padded
    return bytes(unpacked)
