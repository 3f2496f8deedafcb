"""Start, check and restart child processes, and end them with everything that they started.

It knows nothing about what a program does.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Literal

from devstack import leftovers
from devstack.liveness import Liveness, Patience
from devstack.state import State, write_private

Phase = Literal["stopped", "starting", "ready", "restarting", "failed"]
LeaveRoot = Literal["no", "namespace", "uid"]

_LAUNCH = Path(__file__).with_name("launch.py")
_FIRST_POLL_SECONDS = 0.03
_LONGEST_POLL_SECONDS = 0.25
_FIRST_BACKOFF_SECONDS = 0.2
_LONGEST_BACKOFF_SECONDS = 5.0
_STEADY_SECONDS = 10.0
_EARLY_DEATHS = 5
_LOG_BYTES = 16 * 1024 * 1024
_TAIL_LINES = 15
_END_SECONDS = 10.0


class StartError(RuntimeError):
    """A program did not become ready; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Program:
    """The description of a program: its command, and the check that it is ready."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()  # beginnings of names: such variables of the supervisor it does not get
    stop_signal: Signals = SIGTERM
    leave_root: LeaveRoot = "no"
    farewell_seconds: float = 1.0  # what it leaves behind when it dies has so long to end by itself
    # What is wrong with its answers once it was ready, empty where nothing is; None: it is not asked.
    find_problem: Callable[[], Awaitable[str]] | None = None


def environment_of_child(extra: Mapping[str, str], withheld: tuple[str, ...] = ()) -> dict[str, str]:
    """Return this process's environment with `extra`, and without Prefect's settings, which name another server."""
    left_out = ("PREFECT_", "MLFLOW_", *withheld)
    base = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    base.pop("OPTAIC_POSTGRES_URL", None)  # only devstack needs the administrator's login
    return {**base, "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1", **extra}


def read_tail(log: Path) -> str:
    """Return the last lines of a log."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])
    return ""


class Process:
    """A program that is kept running between `start` and `stop`."""

    def __init__(self, state: State, program: Program, patience: Patience | None = None) -> None:
        self.program = program
        self._liveness = Liveness(patience or Patience())
        self.name = program.name
        self.log = state.logs / f"{program.name}.log"
        self.phase: Phase = "stopped"
        self.pid: int | None = None
        self.restarts = 0
        self.ready_seconds: float | None = None
        self._state = state
        self._keeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._stopping = False
        self._is_given_up = False

    async def start(self) -> None:
        """Start it and keep it running; returns once the program exists, before it is ready."""
        if self._keeper is None:
            self._stopping = False
            self._rotate_log()
            child = await self._spawn()
            self._keeper = asyncio.create_task(self._keep(child), name=f"keep-{self.name}")

    async def wait_ready(self, timeout: float) -> None:  # noqa: ASYNC109 - part of the message when it passes
        """Wait until it is ready; raise StartError if it fails or `timeout` seconds pass."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self.phase in {"ready", "failed", "stopped"})
        except TimeoutError:
            raise StartError(self._explain(f"is not ready after {timeout:.0f} s")) from None
        if self.phase != "ready":
            raise StartError(self._explain("does not start"))

    async def stop(self, grace: float) -> None:
        """End it and everything it started; nothing is left when this returns."""
        self._stopping = True
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, self.program.stop_signal)
            await asyncio.wait({keeper}, timeout=grace)
        keeper.cancel()  # between two lives, or deaf
        await asyncio.wait({keeper})
        self.pid = None
        # It had its grace; what is still here is a program that hangs, or what it left behind.
        await asyncio.to_thread(leftovers.end, self._state.root, self.name, 0.0)
        await self._set_phase("stopped")

    async def _keep(self, child: asyncio.subprocess.Process) -> None:
        backoff = _FIRST_BACKOFF_SECONDS
        early_deaths = 0
        while True:
            started = time.monotonic()
            watcher = asyncio.create_task(self._watch(started), name=f"watch-{self.name}")
            try:
                await child.wait()
            finally:
                watcher.cancel()
            self.pid = None
            if self._stopping:
                return
            await self._set_phase(
                "restarting"
            )  # it is ready no longer, however long what it left takes to end
            if self.ready_seconds is None:
                early_deaths += 1
            if time.monotonic() - started > _STEADY_SECONDS:
                backoff = _FIRST_BACKOFF_SECONDS
            self._note(f"exited with {child.returncode}")
            await asyncio.to_thread(leftovers.end, self._state.root, self.name, self.program.farewell_seconds)
            if early_deaths >= _EARLY_DEATHS:
                await self._set_phase("failed")
                return
            self.restarts += 1
            next_child: asyncio.subprocess.Process | None = None
            while next_child is None:
                await self._set_phase("restarting")
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
                try:
                    next_child = await self._spawn()
                except OSError as error:  # no memory, no process, no room: it may pass
                    self._note(f"cannot be started: {error!r}")
            child = next_child

    async def _spawn(self) -> asyncio.subprocess.Process:
        await self._set_phase("starting")
        program = self.program
        launch = (sys.executable, "-I", "-S", str(_LAUNCH), f"--parent={os.getpid()}")
        options = (f"--death-signal={int(program.stop_signal)}", f"--leave-root={program.leave_root}", "--")
        mark = {leftovers.MARK: f"{self._state.root}:{self.name}"}
        with self._open_log() as log:
            child = await asyncio.create_subprocess_exec(
                *launch,
                *options,
                *program.argv,
                env=environment_of_child({**program.environment, **mark}, program.withheld),
                cwd=self._state.root,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = child.pid
        _record(self._state.root, self.name, child.pid)
        return child

    async def _watch(self, started: float) -> None:
        """Watch one start of the program until it is ready, then while it answers; end it if it is silent too long."""
        pause = _FIRST_POLL_SECONDS
        while not await self.program.ready():
            if self.restarts:  # its first start has a deadline of its own
                await self._judge()
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, _LONGEST_POLL_SECONDS)
        self.ready_seconds = time.monotonic() - started
        await self._set_phase("ready")
        while self.program.find_problem is not None:
            await asyncio.sleep(self._liveness.patience.interval_seconds)
            await self._judge()

    async def _judge(self) -> None:
        problem = await self.program.find_problem() if self.program.find_problem is not None else ""
        now = time.monotonic()
        silent = self._liveness.silent_seconds(now)
        verdict = self._liveness.judge(problem, now)
        if verdict == "give up" and not self._is_given_up:
            await self._intervene(f"left as it is, after too many restarts within an hour: {problem}")
        self._is_given_up = verdict == "give up"
        if verdict == "restart":
            await self._intervene(f"restarted, it had not answered for {silent:.0f} s: {problem}")
            await self._end()

    async def _end(self) -> None:
        """Stop the program, politely first; its keeper then starts it again."""
        for number in (self.program.stop_signal, SIGKILL):
            if self.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)
            await asyncio.sleep(_END_SECONDS)  # ended by its end

    async def _intervene(self, what: str) -> None:
        """Record an action on the program and its reason, in its log and for `status`."""
        self._note(what)
        time_ = datetime.now(UTC).isoformat(timespec="seconds")
        with contextlib.suppress(OSError):  # the same
            await asyncio.to_thread(self._state.note_intervention, self.name, f"{time_} {what}")

    async def _set_phase(self, phase: Phase) -> None:
        async with self._changed:
            self.phase = phase
            self._changed.notify_all()

    @contextlib.contextmanager
    def _open_log(self) -> Iterator[int]:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _rotate_log(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > _LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))

    def _note(self, text: str) -> None:
        # A full disk is no reason to leave a program alone; it may be why the program needs help.
        with contextlib.suppress(OSError), self._open_log() as log:
            os.write(log, f"supervisor: {self.name} {text}\n".encode())

    def _explain(self, what: str) -> str:
        return f"{self.name} {what}; last lines of {self.log}:\n{read_tail(self.log)}"


def _record(root: Path, name: str, pid: int) -> None:
    """Record a child, so that it can be ended after the supervisor was killed."""
    start = leftovers.identify(pid)
    if start is not None:
        records = {**leftovers.recorded(root), name: (pid, start)}
        with contextlib.suppress(OSError):  # a full disk: it carries the stack's mark as well
            write_private(root / leftovers.RECORDS, json.dumps(records))


class Guard:
    """A small process that ends the stack's processes when the supervisor is killed without a chance to.

    It holds the folder's lock too, so that no new stack starts into its sweep.
    """

    def __init__(self, root: Path, lock: int) -> None:
        self._root = root
        self._lock = lock
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, in a session of its own: what ends the supervisor's session must not end its guard."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            leftovers.__file__,
            str(self._root),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(self._lock,),
        )

    async def dismiss(self) -> None:
        """Tell the guard that the stack has stopped, and wait until the guard exits."""
        process, self._process = self._process, None
        if process is not None:
            await process.communicate(b"done")
