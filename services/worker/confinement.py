"""The confinement of a process of user code: the worker chooses it, and the guardian of the run carries it out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from worker import namespaces, ownership
from worker.sources.policy import SourcePolicy

_SYSTEM = ("/tmp", "/var/tmp", "/run/user")  # noqa: S108 - they are hidden
# Variables that name files which libraries read.
_FILES = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "LD_LIBRARY_PATH"),
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CA_BUNDLE"),
    "GOOGLE_APPLICATION_CREDENTIALS",
)
# Variables that say where libraries keep what they want to find again.
_CACHES = ("HOME", "TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")  # fmt: skip


@dataclass(frozen=True)
class Confinement:
    """The confinement of one child. Without a user and without namespaces it only has its own temporary folder."""

    user: int | None = None
    has_namespaces: bool = False
    hidden: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    tenant_folder: str = ""  # empty: the data lies in no local folder
    data: tuple[str, ...] = ()  # what of it the child reads
    outputs: tuple[str, ...] = ()  # what of it the child writes
    policy: SourcePolicy = field(default_factory=SourcePolicy)  # by which the guardian opens files for it

    @property
    def is_any(self) -> bool:
        """Return whether the child cannot open files as the worker can."""
        return self.has_namespaces or self.user is not None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` and JSON made of one."""
        names = {each.name for each in dataclasses.fields(cls)} - {
            "user",
            "has_namespaces",
            "tenant_folder",
            "policy",
        }
        lists = {name: tuple(value) for name, value in given.items() if name in names}
        policy = SourcePolicy(**given["policy"]) if "policy" in given else SourcePolicy()
        return cls(**{**given, **lists, "policy": policy})

    def prepare(self, temporary: str) -> int:
        """Make the places that the child writes to, and give them to its user; return how many files were skipped."""
        if not self.is_any:  # the child makes what it needs
            return 0
        for place in self.outputs:
            Path(place).mkdir(parents=True, exist_ok=True)
        if self.user is None:
            return 0
        os.chown(temporary, self.user, self.user)
        places = [Path(each) for each in (*self.outputs, *self.data)]
        if not (self.tenant_folder and places):
            return 0
        return ownership.give(Path(self.tenant_folder), places, self.user)

    def tidy(self) -> None:
        """Remove the places to which the child has written nothing."""
        for place in self.outputs if self.is_any else ():
            with contextlib.suppress(OSError):  # there is something, or nothing at all
                Path(place).rmdir()

    def view(self, temporary: str) -> namespaces.View:
        """Return what the child sees."""
        writable = (*self.outputs, *self.writable, temporary)
        hidden = {*_OWN_FOLDERS, *map(os.path.realpath, self.hidden)} - {"/"}
        given = [each for each in (*self.data, *self.readable) if os.path.exists(each)]  # noqa: PTH110 - quicker
        readable = (*_INSTALLED, *given)
        if self.user is not None:
            hidden |= set(_closed((*readable, *writable), self.user))
        return namespaces.View(tuple(hidden), readable, writable)

    def set_environment(self, temporary: str) -> None:
        """Have libraries write to the temporary folder of the child."""
        names = (
            _CACHES
            if self.is_any
            else [name for name in _CACHES if name != "HOME" and not name.startswith("XDG")]
        )
        os.environ.update(dict.fromkeys(names, temporary))
        tempfile.tempdir = None
        if self.is_any:
            os.chdir(temporary)


def _find_own_folders() -> Iterator[str]:
    """Yield the folders of the worker's user, and those in which all users write."""
    yield from _SYSTEM
    yield tempfile.gettempdir()
    yield str(Path.home())
    try:
        yield pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return


def _find_installed() -> Iterator[str]:
    """Yield what Python imports from, and the files that libraries are told to read."""
    yield from (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)
    yield from sysconfig.get_paths().values()
    yield from filter(None, sys.path)
    for name, module in [*sys.modules.items()]:
        if name.startswith("__editable__"):  # how setuptools finds what is installed from a checkout
            yield from map(str, getattr(module, "MAPPING", {}).values())
    for name in _FILES:
        yield from filter(None, os.environ.get(name, "").split(os.pathsep))


def _keep_outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Return those that exist, hold no folder of the worker's user, and lie in no other one."""
    kept: list[str] = []
    for path in sorted({os.path.abspath(each) for each in paths}, key=len):  # noqa: PTH100 - links stay
        is_own = any(_lies_in(folder, os.path.realpath(path)) for folder in _OWN_FOLDERS)
        if Path(path).exists() and not is_own and not any(_lies_in(path, each) for each in kept):
            kept.append(path)
    return tuple(kept)


def _closed(paths: Iterable[str], user: int) -> Iterator[str]:
    """Yield the folders above these that a user may not enter."""
    above = {str(folder) for path in paths for folder in Path(os.path.realpath(path)).parents}
    for folder in above:
        found = os.stat(folder)  # noqa: PTH116 - quicker
        mode = found.st_mode >> 6 if found.st_uid == user else found.st_mode
        if not mode & 0o1:
            yield folder


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


# Of this process and those that it forks; found once, since it takes as long as all the rest.
_OWN_FOLDERS = frozenset(map(os.path.realpath, _find_own_folders())) - {"/"}
_INSTALLED = _keep_outermost(_find_installed())
