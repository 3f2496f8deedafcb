"""The process around a run's child: start it, keep its output, end everything that it started; computes nothing.

It ends the run's processes when the child ends, on an order, and when its parent has died (even by SIGKILL).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import IO, NoReturn

import redaction
from worker import frames, process_tree, temporary
from worker.birth import ENDING, STATUS, Birth, Born, RunChild, leave, refuse
from worker.cgroup import Cgroup
from worker.confinement import Confinement
from worker.limits import Limits
from worker.limits import Watch as LimitsWatch
from worker.run_output import OutputLimits, RunOutput
from worker.sources import handing
from worker.sources.policy import SourcePolicy

_KILL_SECONDS = 10.0
_HELPER_SECONDS = 1.0  # for those that end with the child, as a tracker of its resources does
_DRAIN_SECONDS = 2.0
_LOOK_SECONDS = 0.2  # between two looks at what the run uses
_CHUNK = 64 * 1024
_LONGEST_FAULT = 64 * 1024  # bytes


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
    crossing: str = ""  # the limit for which it was ended
    lost_lines: int = 0  # of its log
    last_line_time: int | None = None  # in microseconds since 1970, 0 if its log has none; None: not known


NOTHING_PRINTED = Report(None, "", "", 0, 0, last_line_time=0)  # no process was started yet


def guard(line: Line, run_child: RunChild | None = None) -> NoReturn:
    """Be the guardian of one run; to be called in a process of its own, with one thread."""
    leave(lambda: _guard(line, run_child or _compute))


def _compute(work: socket.socket) -> None:
    from worker import child  # noqa: PLC0415 - imports what computes, which no guardian needs

    child.run(work)


def _guard(line: Line, run_child: RunChild) -> None:
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    # A signal to the whole process group would end the guardian before it could end the others.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    order = frames.receive(line.orders)
    if order is None:
        return
    given = json.loads(order[1])
    confinement = Confinement.read(given.pop("confinement", {}))
    bounds = Limits(**given.pop("bounds", {}))
    limits = OutputLimits(**given)
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
    with _open_fault() as fault, temporary.folder() as own_folder:
        source, sink = os.pipe()
        answering, asking = handing.make_line() if confinement.is_any else (None, None)
        closed = (line.orders, ended, wake, *([] if answering is None else [answering]))
        group = Cgroup.create()
        birth = Birth(
            line.work, closed, asking, run_child, source, sink, fault, group, confinement, bounds, own_folder
        )
        try:
            if skipped := confinement.prepare(own_folder):
                output.write(b"[optaic: %d files with several names keep their owner]\n" % skipped)
            born = birth.start()
        except OSError as error:
            refuse(line.work, error)
            born = None
        os.close(sink)
        line.work.close()
        if asking is not None:
            asking.close()
        looks = LimitsWatch(bounds, own_folder) if bounds.are_any else None
        policy = confinement.policy
        watch = _Watch(line.orders, ended, source, born, output, fault, group, answering, policy, looks)
        left = watch.run()
        confinement.tidy()  # before anybody hears that the run has ended, and begins another
        watch.report(left)


def _open_fault() -> IO[bytes]:
    """Return where native code says where it failed: in memory where that can be, since a full disk may be why."""
    if sys.platform == "linux":
        return open(os.memfd_create("optaic-fault"), "w+b", buffering=0)  # noqa: PTH123 - it has no path
    return tempfile.TemporaryFile()


class _Watch:
    """An observer that follows one child to its end."""

    def __init__(
        self,
        orders: socket.socket,
        ended: socket.socket,
        source: int,
        born: Born | None,
        output: RunOutput,
        fault: IO[bytes],
        group: Cgroup | None,
        answering: socket.socket | None,
        policy: SourcePolicy,
        looks: LimitsWatch | None,
    ) -> None:
        self._orders, self._ended, self._source = orders, ended, source
        self._born = born
        self._output = output
        self._fault = fault
        self._group = group
        self._answering, self._policy = answering, policy
        self._looks = looks
        self._status: int | None = None
        self._crossing = ""

    def run(self) -> int:
        """Supervise the run until none of its processes lives any more; return how many its child had left."""
        if self._born is not None:
            self._follow(self._born)
        if self._status is not None:  # it ended by itself
            process_tree.await_descendants(self._reap, _HELPER_SECONDS)
        own = self._own_pids()
        # Counted before a group would end them all at once.
        left = len(process_tree.end_descendants(self._reap, _KILL_SECONDS, self._end_group) - own)
        if self._group is not None:
            self._group.remove()
        limit = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < limit and self._take():
            pass
        self._output.close()
        return left

    def _follow(self, born: Born) -> None:
        """Serve the child until it ends, or until somebody else is to end it."""
        os.set_blocking(self._source, False)
        readers: list[int | socket.socket | None] = [self._orders, self._ended, self._source]
        readers += [born.told, self._answering]
        with selectors.DefaultSelector() as selector:
            for each in readers:
                if each is not None:
                    selector.register(each, selectors.EVENT_READ)
            next_look = time.monotonic() + _LOOK_SECONDS
            while self._status is None and not self._crossing:
                pause = None if self._looks is None else max(0.0, next_look - time.monotonic())
                ready = {key.fileobj for key, _ in selector.select(pause)}
                if self._looks is not None and time.monotonic() >= next_look:
                    self._look(self._looks, born)
                    next_look = time.monotonic() + _LOOK_SECONDS
                if self._source in ready and not self._take():
                    selector.unregister(self._source)
                if self._answering in ready and not self._hand_over():
                    selector.unregister(self._answering)
                if born.told in ready and not self._listen():
                    selector.unregister(born.told)
                if self._ended in ready:
                    self._ended.recv(_CHUNK)
                    self._reap()
                if self._orders in ready:
                    break  # an order to end it, or the parent has died

    def _look(self, looks: LimitsWatch, born: Born) -> None:
        crossing = looks.find_crossing(None if born.told is None else born.pid)
        self._crossing = "" if crossing is None else crossing.describe()

    def _hand_over(self) -> bool:
        return self._answering is not None and handing.answer(self._answering, self._policy)

    def _listen(self) -> bool:
        """Hear from the first process of the namespace how the child ended; False: nothing comes any more."""
        assert self._born is not None
        assert self._born.told is not None
        told = os.read(self._born.told, STATUS.size)
        if len(told) == STATUS.size and self._status is None:
            (self._status,) = STATUS.unpack(told)
        return bool(told)

    def _own_pids(self) -> set[int]:
        """Return the processes that nobody of the run has left: the child, and what started it in its namespace."""
        if self._born is None:
            return set()
        is_in_namespace = self._born.told is not None and self._status is None
        first = process_tree.first_child(self._born.pid) if is_in_namespace else None
        return {self._born.pid} if first is None else {self._born.pid, first}

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
                if self._born is None or pid != self._born.pid:
                    continue
                if self._born.told is not None:
                    self._listen()
                if self._status is None:  # nobody could tell it
                    self._status = status

    def report(self, left_processes: int) -> None:
        """Tell the worker how the run's processes ended."""
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        self._fault.seek(0)
        fault = self._fault.read(_LONGEST_FAULT).decode(errors="replace")
        report = Report(
            code,
            self._output.tail,
            fault,
            self._output.dropped,
            left_processes,
            self._output.fault,
            self._crossing,
            self._output.log.lost,
            self._output.log.last_time,
        )
        with contextlib.suppress(OSError):  # the parent has died
            self._orders.sendall(frames.pack(frames.Kind.REPORT, json.dumps(asdict(report)).encode()))


def _do_nothing(*_: object) -> None:
    """Have the signal wake the selector."""


if __name__ == "__main__":
    guard(Line(*(socket.socket(fileno=int(argument)) for argument in sys.argv[1:3])))
