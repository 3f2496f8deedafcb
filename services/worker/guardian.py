"""The process around a run's child: start it, keep its output, end everything that it started; computes nothing.

It ends the run's processes when the child ends, on an order, and when its parent has died (even by SIGKILL).
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, NoReturn

import redaction
from worker import frames, privileges, process_tree
from worker.cgroup import Cgroup
from worker.run_output import OutputLimits, RunOutput

_KILL_SECONDS = 10.0
_HELPER_SECONDS = 1.0  # for those that end with the child, as a tracker of its resources does
_DRAIN_SECONDS = 2.0
_CHUNK = 64 * 1024
_LONGEST_FAULT = 64 * 1024  # bytes
_OURS = ("OPTAIC_", "PREFECT_")  # settings of the worker and of Prefect, which user code has no use for
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

RunChild = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Line:
    """One side's ends of the two sockets: with the guardian, and with the child that it starts."""

    orders: socket.socket
    work: socket.socket

    def close(self) -> None:
        """Let go; the other side sees it."""
        self.orders.close()
        self.work.close()


def make_lines() -> tuple[Line, Line]:
    """Return ours and the guardian's."""
    orders, works = socket.socketpair(), socket.socketpair()
    return Line(orders[0], works[0]), Line(orders[1], works[1])


@dataclass(frozen=True)
class Report:
    """The end of a child."""

    exit_code: int | None  # negative after a signal; None: not known
    tail: str  # the last lines of its output
    fault: str  # where it was when native code failed, innermost first; empty otherwise
    dropped_bytes: int  # of its output
    left_processes: int  # that it had started and that had not ended
    output_fault: str = ""  # why its output was not written


def guard(line: Line, run_child: RunChild | None = None) -> NoReturn:
    """Be the guardian of one run; to be called in a process of its own, with one thread."""
    _leave(lambda: _guard(line, run_child or _compute))


def _compute(work: socket.socket) -> None:
    from worker import child  # noqa: PLC0415 - imports what computes, which no guardian needs

    child.run(work)


def _guard(line: Line, run_child: RunChild) -> None:
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    # A signal to the whole process group would end the guardian before it could end the others.
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    order = frames.receive(line.orders)
    if order is None:
        return
    limits = OutputLimits(**json.loads(order[1]))
    redaction.remember(limits.secrets)
    output = RunOutput(limits)
    if not process_tree.adopt_orphans():
        output.write(
            b"[optaic: processes that leave their parent are not ended with the run on this system]\n"
        )
    ended, wake = socket.socketpair()
    for end in (ended, wake):
        end.settimeout(0)
    signal.signal(signal.SIGCHLD, _do_nothing)
    signal.set_wakeup_fd(wake.fileno())
    source, sink = os.pipe()
    group = Cgroup.create()
    with _open_fault() as fault:
        pid = _start(line, run_child, source, sink, fault, group)
        os.close(sink)
        line.work.close()
        _Watch(line.orders, ended, source, pid, output, fault, group).run()


def _open_fault() -> IO[bytes]:
    """Return where native code says where it failed: in memory where that can be, since a full disk may be why."""
    if sys.platform == "linux":
        return open(os.memfd_create("optaic-fault"), "w+b", buffering=0)  # noqa: PTH123 - it has no path
    return tempfile.TemporaryFile()


def _start(
    line: Line, run_child: RunChild, source: int, sink: int, fault: IO[bytes], group: Cgroup | None
) -> int:
    own = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()

    def be_child() -> None:
        process_tree.die_with_parent(own)
        if group is not None:
            group.enter()
        # Where memory runs out, the kernel is to take this process, and not one that could say so.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
        signal.set_wakeup_fd(-1)
        for number in (*_ENDING, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for name in [name for name in os.environ if name.startswith(_OURS)]:
            del os.environ[name]  # those secrets that are meant for the run come with its task
        privileges.drop()
        line.orders.close()
        os.close(source)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.close(sink)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is what it is for
            os.dup2(nothing.fileno(), 0)
        # A process that is killed takes with it what it has not written.
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr] # a text stream in a real process
        faulthandler.enable(fault, all_threads=False)
        run_child(line.work)

    pid = os.fork()
    if not pid:
        _leave(be_child)
    return pid


def _leave(last: Callable[[], None]) -> NoReturn:
    """Do one last thing in this process: a fork must never return into what its parent was doing."""
    code = 1
    try:
        last()
        code = 0
    except BaseException:  # noqa: BLE001 - otherwise the error would be lost
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class _Watch:
    """An observer that follows one child to its end."""

    def __init__(
        self,
        orders: socket.socket,
        ended: socket.socket,
        source: int,
        pid: int,
        output: RunOutput,
        fault: IO[bytes],
        group: Cgroup | None,
    ) -> None:
        self._orders, self._ended, self._source = orders, ended, source
        self._pid = pid
        self._output = output
        self._fault = fault
        self._group = group
        self._status: int | None = None

    def run(self) -> None:
        """Supervise the run until none of its processes lives any more."""
        os.set_blocking(self._source, False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._orders, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            selector.register(self._source, selectors.EVENT_READ)
            while self._status is None:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._source in ready and not self._take():
                    selector.unregister(self._source)
                if self._ended in ready:
                    self._ended.recv(_CHUNK)
                    self._reap()
                if self._orders in ready:
                    break  # an order to end it, or the parent has died
        if self._status is not None:  # it ended by itself
            process_tree.await_descendants(self._reap, _HELPER_SECONDS)
        # Counted before a group would end them all at once.
        left = process_tree.end_descendants(self._reap, _KILL_SECONDS, self._end_group) - {self._pid}
        if self._group is not None:
            self._group.remove()
        limit = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < limit and self._take():
            pass
        self._output.close()
        self._report(len(left))

    def _end_group(self) -> None:
        if self._group is not None:
            self._group.kill()

    def _take(self) -> bool:
        """Take what is there of the output; False: nothing, or nothing more."""
        try:
            data = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return False
        self._output.write(data)
        return bool(data)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    self._status = status

    def _report(self, left_processes: int) -> None:
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        self._fault.seek(0)
        fault = self._fault.read(_LONGEST_FAULT).decode(errors="replace")
        report = Report(
            code, self._output.tail, fault, self._output.dropped, left_processes, self._output.fault
        )
        with contextlib.suppress(OSError):  # the parent has died
            self._orders.sendall(frames.pack(frames.Kind.REPORT, json.dumps(asdict(report)).encode()))


def _do_nothing(*_: object) -> None:
    """Have the signal wake the selector."""


if __name__ == "__main__":
    guard(Line(*(socket.socket(fileno=int(argument)) for argument in sys.argv[1:3])))
