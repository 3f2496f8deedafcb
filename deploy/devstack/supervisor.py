"""Running a stack from a terminal: in the foreground, or under a supervisor of its own in the background."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from devstack import leftovers
from devstack.config import Settings
from devstack.endpoints import Endpoints
from devstack.processes import StartError, read_tail
from devstack.report import read_status
from devstack.stack import Stack, Wait
from devstack.state import State

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECONDS = 0.1
_DOWN_SECONDS = 60.0

Main = Callable[[Stack], Awaitable[int]]


def run_until_signal(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run `main`; the first signal cancels it, and later signals do not disturb its clean-up."""
    received: list[int] = []

    async def guarded() -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(main())

        def end(number: int) -> None:
            if not received:
                task.cancel()
            received.append(number)

        for number in _ENDING:
            loop.add_signal_handler(number, end, number)
        try:
            return await task
        except asyncio.CancelledError:
            if not received:
                raise
            return 128 + received[0]

    return asyncio.run(guarded())


def run(main: Main | None = None, settings: Settings | None = None, wait: Wait = "all") -> int:
    """Keep a stack up while `main` runs (for ever without one); return its exit code, 128 + n after signal n.

    Ctrl-C, SIGTERM or SIGHUP at any point, even during the start, leave nothing running.
    """

    async def serve() -> int:
        stack = Stack(settings=settings)
        await stack.up(wait)
        try:
            return await (main or _wait_for_ever)(stack)
        finally:
            await stack.down()

    return run_until_signal(serve)


async def _wait_for_ever(stack: Stack) -> int:
    await stack.wait_ready()
    await asyncio.Event().wait()
    return 0


def up(settings: Settings | None = None) -> Endpoints:
    """Start a stack in the background and return when it is ready; do nothing if one runs already.

    Raises:
        StartError: It did not start; nothing is left running.
        KeyboardInterrupt: It was interrupted while starting; nothing is left running.
    """
    chosen = settings or Settings()
    state = State(chosen.root)
    state.create()
    outcome: list[Endpoints] = []

    async def start() -> int:
        outcome.append(await _start(chosen, state))
        return 0

    if run_until_signal(start):
        raise KeyboardInterrupt
    return outcome[0]


async def _start(settings: Settings, state: State) -> Endpoints:
    pid = None if state.supervisor() else _spawn_supervisor(settings, state)
    try:
        async with asyncio.timeout(settings.stack_start_timeout_seconds + _DOWN_SECONDS):
            return await _wait_until_up(state, pid)
    except BaseException as error:
        if pid is not None:
            await asyncio.to_thread(_end_supervisor, state, pid)
        if isinstance(error, TimeoutError):
            raise StartError(f"the stack is not ready; see {state.logs / 'supervisor.log'}") from None
        raise


def _spawn_supervisor(settings: Settings, state: State) -> int:
    """Start it in a session of its own; not by `subprocess`, which complains of children that outlive their parent."""
    log = state.logs / "supervisor.log"
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    argv = [sys.executable, "-m", "devstack", "supervise"]
    return os.posix_spawn(
        sys.executable,
        argv,
        {**_RUN_SERVICE, **os.environ, **_environment(settings)},
        file_actions=files,
        setsid=True,
    )


async def _wait_until_up(state: State, pid: int | None) -> Endpoints:
    while True:
        gone = pid is None or leftovers.identify(pid) is None
        supervisor = state.supervisor()
        if supervisor is not None and supervisor["phase"] == "ready":
            endpoints = Endpoints.load(state)
            assert endpoints is not None
            return endpoints
        if gone and supervisor is None:
            raise StartError(state.failure_of(pid) or read_tail(state.logs / "supervisor.log"))
        await asyncio.sleep(_POLL_SECONDS)


def down(settings: Settings | None = None) -> bool:
    """Stop the stack of this state folder, and whatever a crashed one left; answers whether there was any."""
    state = State((settings or Settings()).root)
    supervisor = state.supervisor()
    if supervisor is not None:
        _end_supervisor(state, supervisor["pid"])
    return bool(leftovers.end(state.root)) or supervisor is not None


def status(settings: Settings | None = None) -> dict[str, Any]:
    """Return which programs run and which of them answer."""
    return asyncio.run(read_status(State((settings or Settings()).root)))


def _end_supervisor(state: State, pid: int) -> None:
    start = leftovers.identify(pid)
    deadline = time.monotonic() + _DOWN_SECONDS
    with contextlib.suppress(ProcessLookupError):
        if start is not None:
            os.kill(pid, signal.SIGTERM)
        # Not by waiting for the process: it has no parent that collects it and may stay a zombie.
        while start is not None and leftovers.identify(pid) == start:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS / 2)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    leftovers.end(state.root)


# The embedded stack gives a claimed run this long to start, unless the environment says otherwise.
_RUN_SERVICE = {"OPTAIC_START_TIMEOUT_SECONDS": "90.0"}


def _environment(settings: Settings) -> dict[str, str]:
    """Return the settings as environment variables."""
    values = settings.model_copy(update={"state": settings.root}).model_dump(mode="json")
    return {
        f"OPTAIC_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }
