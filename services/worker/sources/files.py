"""Open local files below the folders of the policy; every check is made on the file that is open, not on its name."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from optaic.plugins import InvalidConfig, SourceNotAllowed, SourceNotFound, SourceUnavailable
from worker.sources.policy import SourcePolicy

_NEVER = ("/proc", "/dev", "/sys", "/run", "/var/run")
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ONLY_A_NAME = getattr(os, "O_PATH", 0)  # opening in this way has no effect on a device or a pipe


@dataclass(frozen=True)
class OpenFile:
    """A file that the policy allows."""

    descriptor: int
    path: str  # its real path
    size: int
    is_handed: bool = False  # by the guardian: this process cannot open it by its path


Ask = Callable[[str, str, str], AbstractContextManager[OpenFile]]
_ask: Ask | None = None


def ask_for_files(ask: Ask) -> None:
    """Have `open_file` ask another process, by the text, the field and what is shown."""
    global _ask  # noqa: PLW0603 - a process computes one run
    _ask = ask


@contextmanager
def open_file(policy: SourcePolicy, text: str, *, field: str, shown: str) -> Iterator[OpenFile]:
    """Open a regular file for reading.

    Args:
        policy: of the tenant.
        text: its path, as configured.
        field: of the configuration.
        shown: the file, as an error may call it.

    Raises:
        SourceNotAllowed: it lies outside of all folders of the policy, or is no ordinary file.
        SourceNotFound: it does not exist.
        SourceUnavailable: it cannot be opened.
    """
    if "\0" in text:
        raise InvalidConfig(f"{field}: must not contain control characters")
    if _ask is not None:
        with _ask(text, field, shown) as handed:
            yield handed
        return
    path = os.path.realpath(Path(text).expanduser() if text.startswith("~") else text)
    # First by name, so that an answer does not tell what exists elsewhere.
    _check_place(policy, path, field, shown)
    try:
        # By its real path: a link that takes its place now is not followed.
        named = os.open(path, _FLAGS | os.O_NOFOLLOW | (_ONLY_A_NAME or os.O_RDONLY))
    except FileNotFoundError:
        raise SourceNotFound(
            f"url: the file {shown} does not exist; correct url, or deliver the file"
        ) from None
    except OSError as error:
        raise SourceUnavailable(f"{shown} cannot be read: {error.strerror}") from None
    try:
        real = _name_of(named, path)
        _check_place(policy, real, field, shown)
        found = os.fstat(named)
        _check_kind(found, field, shown)
        descriptor = _reopen(named, shown)
    finally:
        os.close(named)
    try:
        yield OpenFile(descriptor, real, found.st_size)
    finally:
        os.close(descriptor)


def read_bytes(file: OpenFile, most: int) -> bytes:
    """Return the content, and one byte more than `most` if it is longer."""
    with os.fdopen(os.dup(file.descriptor), "rb") as stream:
        return stream.read(most + 1)


def _reopen(named: int, shown: str) -> int:
    """Return a descriptor that reads the file which a descriptor names."""
    if not _ONLY_A_NAME:
        return os.dup(named)
    try:
        return os.open(f"/proc/self/fd/{named}", os.O_RDONLY | _FLAGS)
    except OSError as error:
        raise SourceUnavailable(f"{shown} cannot be read: {error.strerror}") from None


def _name_of(descriptor: int, path: str) -> str:
    """Return the path of an open file, as the kernel knows it."""
    if _ONLY_A_NAME:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    if hasattr(fcntl, "F_GETPATH"):  # macOS
        return fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0").decode()
    return path


def _check_kind(found: os.stat_result, field: str, shown: str) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise SourceUnavailable(f"{shown} cannot be read: it is a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise SourceNotAllowed(f"{field}: {shown} is not an ordinary file")
    if found.st_nlink > 1:  # one of its names may lie outside
        raise SourceNotAllowed(
            f"{field}: {shown} has {found.st_nlink} hard links; its other names may be outside of the folders that "
            "the worker may read. Copy it"
        )


def _check_place(policy: SourcePolicy, path: str, field: str, shown: str) -> None:
    """Check the real path of a file.

    Raises:
        SourceNotAllowed: it lies in no folder of the policy, or in one that is excluded.
    """
    if _lies_in(path, _NEVER):
        raise SourceNotAllowed(f"{field}: {shown} belongs to the system; no setting allows it")
    roots = [root for root in map(os.path.realpath, policy.roots) if _lies_in(path, (root,))]
    if not roots:
        allowed = ", ".join(policy.roots) or "none"
        raise SourceNotAllowed(
            f"{field}: {shown} lies in no folder that the worker may read ({allowed}); move the file there, or add its "
            "folder to OPTAIC_SOURCE_ROOTS"
        )
    if _lies_in(path, [os.path.realpath(folder) for folder in policy.excluded]):
        raise SourceNotAllowed(
            f"{field}: {shown} lies in a folder of OPTAIC_SOURCE_EXCLUDED, which the worker keeps to itself"
        )
    inner = Path(path).relative_to(max(roots, key=len))
    if any(part.startswith(".") for part in inner.parts):
        raise SourceNotAllowed(
            f"{field}: {shown} is hidden or lies in a hidden folder; add that folder itself to OPTAIC_SOURCE_ROOTS"
        )


def _lies_in(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder.rstrip('/')}/") for folder in folders)
