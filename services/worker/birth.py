"""The birth of a run's child: it becomes what its confinement says before it executes user code."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from worker import frames, namespaces, privileges, process_tree
from worker.cgroup import Cgroup
from worker.confinement import Confinement
from worker.limits import Limits

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = struct.Struct("!i")
_OURS = ("OPTAIC_", "PREFECT_")  # settings of the worker and of Prefect, which user code has no use for
_FIRST_PROCESS = 1  # of a namespace

RunChild = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Born:
    """A child that was started."""

    pid: int  # of the child, or of the process that started it in a namespace
    told: int | None  # where that process tells how the child ended


@dataclass(frozen=True)
class Birth:
    """All that a child is given."""

    work: socket.socket
    closed: tuple[socket.socket, ...]  # what it must not have
    files: socket.socket | None  # on which it asks for files
    run_child: RunChild
    source: int
    sink: int
    fault: IO[bytes]
    group: Cgroup | None
    confinement: Confinement
    bounds: Limits
    temporary: str

    def start(self) -> Born:
        """Start the child.

        Raises:
            OSError: the kernel does not allow its confinement.
        """
        own = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        if not self.confinement.has_namespaces:
            return Born(_fork(lambda: self._be_child(own)), None)
        namespaces.divide_processes()
        lives, living = os.pipe()  # the second end lives as long as this process
        told, tell = os.pipe()

        def be_first() -> None:
            os.close(living)
            process_tree.die_with_parent(0)  # as a parent outside of the namespace is called
            if select.select([lives], [], [], 0)[0]:
                return
            os.close(told)
            self._be_first(tell)

        pid = _fork(be_first)
        os.close(lives)
        os.close(tell)
        return Born(pid, told)

    def _be_first(self, tell: int) -> None:
        """Be the first process of a namespace: start the child, tell how it ended, and stay while there are others.

        All processes of a namespace end with its first one.
        """
        self._enter_group()
        try:
            namespaces.enter(self.confinement.view(self.temporary))
        except OSError as error:
            refuse(self.work, error)
            return
        pid = _fork(lambda: self._be_child(_FIRST_PROCESS))
        privileges.hide()
        for each in (self.work, self.files, *self.closed):
            if each is not None:
                each.close()
        for descriptor in (self.source, self.sink):
            os.close(descriptor)
        for number in (1, 2):  # what this process printed would look like output of the child
            os.dup2(tell, number)
        with contextlib.suppress(ChildProcessError):
            while True:
                ended, status = os.wait()
                if ended == pid:
                    os.write(tell, STATUS.pack(status))

    def _enter_group(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self.group is not None:
            self.group.enter()

    def _be_child(self, parent: int) -> None:
        process_tree.die_with_parent(parent)
        if not self.confinement.has_namespaces:
            self._enter_group()
        # Where memory runs out, the kernel is to take this process, and not one that could say so.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)
        for name in [name for name in os.environ if name.startswith(_OURS)]:
            del os.environ[name]  # those secrets that are meant for the run come with its task
        try:
            self.bounds.set_on_this_process(is_alone=self.confinement.is_any)
            privileges.drop(self.confinement.user)
            self.confinement.set_environment(self.temporary)
        except (OSError, ValueError) as error:  # of a limit that cannot be set, the second
            refuse(self.work, error)
            return
        process_tree.die_with_parent(parent)  # the kernel forgets it when the user changes
        for each in self.closed:
            each.close()
        os.close(self.source)
        os.dup2(self.sink, 1)
        os.dup2(self.sink, 2)
        os.close(self.sink)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is what it is for
            os.dup2(nothing.fileno(), 0)
        # A process that is killed takes with it what it has not written.
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr] # a text stream in a real process
        faulthandler.enable(self.fault, all_threads=False)
        if self.files is not None:
            from worker.sources import handing  # noqa: PLC0415 - imports what no guardian needs

            handing.ask_through(self.files)
        self.run_child(self.work)


def refuse(work: socket.socket, error: Exception) -> None:
    """Tell the worker that the child cannot be confined, so it does not run."""
    from worker.failures import Failure  # noqa: PLC0415 - imports what no guardian needs

    text = (
        f"the process of user code cannot be confined: {error}; nothing was executed. Correct the machine, or set "
        "OPTAIC_CHILD_ISOLATION of the worker to what it allows"
    )
    with contextlib.suppress(OSError):
        work.sendall(frames.pack(frames.Kind.FAILURE, Failure("IsolationFailed", text, "").pack()))


def leave(last: Callable[[], None]) -> NoReturn:
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


def _fork(do: Callable[[], None]) -> int:
    pid = os.fork()
    if not pid:
        leave(do)
    return pid
