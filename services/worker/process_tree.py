"""Find and end the descendants of this process, even if they moved to another session."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Collection

import psutil

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, from linux/prctl.h
_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_POLL_SECONDS = 0.01
_CLOCK_SLACK = 200  # hundredths of a second


def _do_nothing() -> None:
    """Do nothing: the process has no group."""


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends; only Linux can."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before it could be asked for
        os._exit(1)


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose own parent ends; False where the system cannot do that."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def await_descendants(reap: Callable[[], None], within: float) -> None:
    """Wait until all descendants have ended by themselves; the helpers of a process end soon after it."""
    limit = time.monotonic() + within
    while time.monotonic() < limit:
        reap()
        if not _has_children():
            return
        time.sleep(_POLL_SECONDS)


def end_descendants(
    reap: Callable[[], None], within: float, end_group: Callable[[], None] = _do_nothing
) -> set[int]:
    """Kill every descendant of this process, including those started in the meantime; return their pids.

    `reap` waits, without blocking, for children that have ended; `end_group` kills, all at once, those that are in a
    group. Gives up after `within` seconds: a process that waits for a device cannot be killed.
    """
    killed: set[int] = set()
    limit = time.monotonic() + within
    while time.monotonic() < limit:
        reap()
        # A process may have started others before it was killed: search until none is left.
        living = _living_descendants() if _has_children() else []
        end_group()
        if not living:
            break
        killed.update(process.pid for process in living)
        for process in living:
            with contextlib.suppress(psutil.Error):  # all processes of a namespace end with its first one
                process.kill()
        time.sleep(_POLL_SECONDS)
    return killed


def first_child(pid: int) -> int | None:
    """Return the living child of a process that was started first."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(pid).children()
        return min(children, key=lambda each: each.create_time()).pid if children else None
    return None


def end_orphans(kept: Collection[int | None], within: float) -> set[int]:
    """Kill every descendant of this process that does not descend from one that is kept; return their pids."""
    killed: set[int] = set()
    limit = time.monotonic() + within
    while time.monotonic() < limit:
        orphans = [process for process in psutil.Process().children() if process.pid not in kept]
        for process in orphans:
            with contextlib.suppress(psutil.Error):
                for each in (process, *process.children(recursive=True)):
                    each.kill()
                    killed.add(each.pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
        if not orphans:
            break
        time.sleep(_POLL_SECONDS)
    return killed


def reap() -> None:
    """Take the exit codes of children that have ended, for a process that wants none of them."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def mark() -> str:
    """Return text that names this process, and no later one with its pid."""
    return f"{os.getpid()}-{_start_time(os.getpid())}"


def is_marked(text: str) -> bool:
    """Return whether the process still exists that a mark names; more may follow the mark after a hyphen."""
    pid, _, rest = text.partition("-")
    try:
        # Corrections of the clock move it a little.
        return abs(_start_time(int(pid)) - int(rest.partition("-")[0])) < _CLOCK_SLACK
    except (psutil.Error, ValueError):
        return False


def _start_time(pid: int) -> int:
    """Return a process's start time, which together with its pid identifies it uniquely."""
    return int(psutil.Process(pid).create_time() * 100)


def _has_children() -> bool:
    """Return whether this process may have children, living or not; to search all processes for them takes far longer."""
    if not hasattr(os, "waitid"):  # only the search can tell
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _living_descendants() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if _is_living(process)]


def _is_living(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
