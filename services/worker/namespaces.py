"""Give this process its own users, processes and mounts, as far as the kernel allows; it decides nothing of what is shown."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

_NEW_MOUNTS, _NEW_USERS, _NEW_PROCESSES = 0x00020000, 0x10000000, 0x20000000  # CLONE_NEWNS and so on
_PRIVATE, _BIND, _RECURSIVE = 1 << 18, 1 << 12, 1 << 14  # MS_PRIVATE, MS_BIND, MS_REC
_NO_SUID, _NO_DEVICES, _NO_EXECUTION = 2, 4, 8  # MS_NOSUID, MS_NODEV, MS_NOEXEC
_SET_MOUNT_ATTRIBUTES = 442  # mount_setattr, which has the same number on every architecture
_HERE, _WHOLE_TREE = -100, 0x8000  # AT_FDCWD, AT_RECURSIVE
_READ_ONLY, _IGNORE_SUID = 1, 2  # MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID
_EMPTY = b"mode=0755,size=1m"
_KERNEL = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - it gets its own, which ends with the run


@dataclass(frozen=True)
class View:
    """The files that a process sees and may write. Whatever is not named here it sees and cannot write."""

    hidden: tuple[str, ...]  # folders that become empty
    readable: tuple[str, ...]  # of what lies in those: what is shown again
    writable: tuple[str, ...]


class _Attributes(ctypes.Structure):
    """The kernel's struct mount_attr."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user")]


def divide_processes() -> None:
    """Have the processes that this one forks from now on see no others; needs one thread.

    An ordinary user gets the right to do so in a namespace of users, where it stays who it is.

    Raises:
        OSError: the kernel does not allow it.
    """
    if sys.platform != "linux":
        raise OSError("only Linux has namespaces")
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _unshare(_NEW_PROCESSES)
        return
    _unshare(_NEW_USERS | _NEW_PROCESSES)
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny", encoding="ascii")
    (own / "uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    (own / "gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def enter(view: View) -> None:
    """See and write only what a view allows; for the first process after `divide_processes`.

    Raises:
        OSError: the kernel does not allow it, or a place that is to be shown does not exist.
    """
    _unshare(_NEW_MOUNTS)
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    _mount("proc", "/proc", "proc", _NO_SUID | _NO_DEVICES | _NO_EXECUTION)
    writable = {*_names(view.writable)}
    shown = {**dict.fromkeys(_names(view.readable), False), **dict.fromkeys(writable, True)}
    hidden = {os.path.realpath(each) for each in view.hidden} - shown.keys() - {"/"}
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o022))  # others are to enter the folders that are made
        sources = {}
        for path in shown:  # opened before anything is hidden
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            sources[path] = descriptor
        is_empty: dict[str, bool] = {}
        for path in sorted({*hidden, *shown}, key=lambda each: each.count("/")):
            is_in_empty = next(
                (is_empty[str(each)] for each in Path(path).parents if str(each) in is_empty), False
            )
            if path in hidden:
                if not is_in_empty and Path(path).is_dir():
                    _mount("tmpfs", path, "tmpfs", _NO_SUID | _NO_DEVICES, _EMPTY)
                is_empty[path] = True
            elif is_in_empty or path in writable:
                _make_place(path, is_folder=Path(f"/proc/self/fd/{sources[path]}").is_dir())
                _mount(f"/proc/self/fd/{sources[path]}", path, None, _BIND | _RECURSIVE)
                is_empty[path] = False
    for path in filter(os.path.exists, _KERNEL):  # stay read only; of a user that is root, too
        _mount(path, path, None, _BIND | _RECURSIVE)
    _change("/", _WHOLE_TREE, to_set=_READ_ONLY | _IGNORE_SUID)
    for path in writable:
        _change(path, _WHOLE_TREE, to_clear=_READ_ONLY)
    _change("/proc", to_clear=_READ_ONLY)
    if Path(_SHARED_MEMORY).is_dir():
        _mount("tmpfs", _SHARED_MEMORY, "tmpfs", _NO_SUID | _NO_DEVICES, b"mode=1777,size=25%")


def _names(paths: Iterable[str]) -> list[str]:
    """Return the paths as they are written, and as they are without links: programs use both."""
    return [name for path in paths for name in (os.path.abspath(path), os.path.realpath(path))]  # noqa: PTH100 - links stay


def _make_place(path: str, *, is_folder: bool) -> None:
    """Make the folder or file that is mounted on, where there is none."""
    place = Path(path)
    if is_folder:
        place.mkdir(parents=True, exist_ok=True)
    elif not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def _unshare(what: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(what):
        raise _failure("unshare")


def _mount(source: str | None, path: str, kind: str | None, flags: int, data: bytes | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    given = [None if each is None else os.fsencode(each) for each in (source, path, kind)]
    if libc.mount(*given, ctypes.c_ulong(flags), data):
        raise _failure(f"mount {path}")


def _change(path: str, how: int = 0, *, to_set: int = 0, to_clear: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = _Attributes(to_set, to_clear, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    arguments = (_HERE, os.fsencode(path), how, ctypes.byref(attributes), size)
    if libc.syscall(ctypes.c_long(_SET_MOUNT_ATTRIBUTES), *arguments):
        raise _failure(f"mount_setattr {path}")


def _failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
