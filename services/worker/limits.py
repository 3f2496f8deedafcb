"""The limits of one run's processes, all together, and a watch over them; it ends nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PAGE = 1024  # /proc counts in KiB
_BLOCK = 512  # bytes, as stat counts them
_SLACK = 1 << 30  # bytes that libraries reserve and do not use


@dataclass(frozen=True)
class Limits:
    """The most that a run's processes may use; 0: without limit."""

    memory_bytes: int = 0
    cpu_seconds: float = 0.0
    processes: int = 0  # and threads
    temporary_bytes: int = 0

    @property
    def are_any(self) -> bool:
        """Return whether there is anything to watch."""
        return bool(self.memory_bytes or self.cpu_seconds or self.processes or self.temporary_bytes)

    def set_on_this_process(self, *, is_alone: bool) -> None:
        """Have the kernel hold this process, and what it starts, to what the watch could see too late.

        Args:
            is_alone: whether no process but the run's, or its tenant's, has this one's user.
        """
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would fill the disk, and show secrets
        if sys.platform != "linux":
            return
        if self.memory_bytes:
            _lower(resource.RLIMIT_DATA, 2 * self.memory_bytes + _SLACK)
        if self.processes and is_alone:
            _lower(resource.RLIMIT_NPROC, 2 * self.processes)


@dataclass(frozen=True)
class Crossing:
    """A limit that was exceeded."""

    what: str
    setting: str
    used: str
    allowed: str

    def describe(self) -> str:
        """Say which limit it was, what the run used, and where it is changed."""
        return (
            f"the run exceeded its limit of {self.what}: its processes used {self.used}, and {self.allowed} are allowed; all of "
            f"them were ended. Have the run need less, or raise {self.setting} of the worker"
        )


class Watch:
    """A watch over the descendants of this process."""

    def __init__(self, limits: Limits, temporary: str) -> None:
        self._limits = limits
        self._temporary = temporary
        self._looks = 0

    def find_crossing(self, first: int | None) -> Crossing | None:
        """Return a limit that the descendants exceed now; files are looked at each fifth time.

        Args:
            first: the process of ours among them, which only starts the others.
        """
        if sys.platform != "linux":
            return None
        limits = self._limits
        tree = [pid for pid in _list_tree(os.getpid()) if pid not in {os.getpid(), first}]
        if limits.processes and (count := sum(map(_count_threads, tree))) > limits.processes:
            return Crossing(
                "processes and threads", "OPTAIC_CHILD_PROCESSES", str(count), str(limits.processes)
            )
        if limits.memory_bytes and (used := _measure_memory(tree, limits.memory_bytes)) > limits.memory_bytes:
            return Crossing(
                "memory", "OPTAIC_CHILD_MEMORY_BYTES", f"{used} bytes", f"{limits.memory_bytes} bytes"
            )
        if limits.cpu_seconds and (spent := _measure_time(tree, first)) > limits.cpu_seconds:
            return Crossing(
                "processor time", "OPTAIC_CHILD_CPU_SECONDS", f"{spent:.1f} s", f"{limits.cpu_seconds:g} s"
            )
        self._looks += 1
        if limits.temporary_bytes and self._looks % 5 == 0:
            size = _measure_folder(self._temporary) + _measure_removed(tree, self._temporary)
            if size > limits.temporary_bytes:
                return Crossing(
                    "temporary files",
                    "OPTAIC_CHILD_TEMPORARY_BYTES",
                    f"{size} bytes",
                    f"{limits.temporary_bytes} bytes",
                )
        return None


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _list_tree(pid: int) -> Iterator[int]:
    """Yield a process and its descendants, as far as they stay while this looks."""
    waiting = [pid]
    while waiting:
        pid = waiting.pop()
        yield pid
        for task in _list_names(f"/proc/{pid}/task"):
            waiting += map(int, _read(f"/proc/{pid}/task/{task}/children").split())


def _count_threads(pid: int) -> int:
    return len(_list_names(f"/proc/{pid}/task"))


def _measure_memory(tree: list[int], most: int) -> int:
    """Return the memory of processes. What they share is divided among them only if it seems to be too much."""
    quickly = sum(_read_field(f"/proc/{pid}/status", "RssAnon:", "RssShmem:") for pid in tree)
    if quickly <= most:
        return quickly
    exactly = [_read_field(f"/proc/{pid}/smaps_rollup", "Pss_Anon:", "Pss_Shmem:") for pid in tree]
    return quickly if not any(exactly) else sum(exactly)


def _read_field(path: str, *names: str) -> int:
    return sum(int(line.split()[1]) * _PAGE for line in _read(path).splitlines() if line.startswith(names))


def _measure_time(tree: list[int], first: int | None) -> float:
    """Return the processor time of processes, and of those that have ended and that they, or ours, waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    for pid in tree if first is None else [*tree, first]:
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK") + ended.ru_utime + ended.ru_stime


def _measure_folder(folder: str) -> int:
    """Return the size of the files in a folder; no link is followed."""
    size = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for each in entries:
            with contextlib.suppress(OSError):
                size += each.stat(follow_symlinks=False).st_blocks * _BLOCK
                if each.is_dir(follow_symlinks=False):
                    size += _measure_folder(each.path)
    return size


def _measure_removed(tree: list[int], folder: str) -> int:
    """Return the size of the files that have no name any more and are still open, on the disk of a folder."""
    try:
        disk = os.lstat(folder).st_dev
    except OSError:
        return 0
    found: dict[int, int] = {}
    for pid in tree:
        for name in _list_names(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                each = os.stat(f"/proc/{pid}/fd/{name}")  # noqa: PTH116 - the same
                if stat.S_ISREG(each.st_mode) and each.st_nlink == 0 and each.st_dev == disk:
                    found[each.st_ino] = each.st_blocks * _BLOCK
    return sum(found.values())


def _list_names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are wanted
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
