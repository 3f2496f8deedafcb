"""Running a stack from a terminal: in the foreground, or under a supervisor of its own in the background."""

import asyncio
import contextlib
import os
import signal
import subprocess
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
    """Run `main`; the first signal cancels it, later ones cannot disturb what it then puts in order."""
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
    """Keep a stack up while `main` runs (for ever without one); answers its exit code, 128 + n after signal n.

    Ctrl-C, SIGTERM or SIGHUP at any point, also while it starts, leave nothing running.
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
    """Leave a stack running in the background and return when it is ready; one that runs already is fine.

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
    child = None
    log = state.logs / "supervisor.log"
    if state.supervisor() is None:
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: ASYNC220 - it outlives this loop
                [sys.executable, "-m", "devstack", "supervise"],
                env={**os.environ, **_environment(settings)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    try:
        async with asyncio.timeout(settings.start_timeout_seconds + _DOWN_SECONDS):
            return await _wait_until_up(state, child)
    except TimeoutError:
        raise StartError(f"the stack is not ready; see {log}") from None
    except BaseException:
        if child is not None:
            await asyncio.to_thread(_end_supervisor, state, child.pid)
        raise


async def _wait_until_up(state: State, child: subprocess.Popen[bytes] | None) -> Endpoints:
    while True:
        gone = child is not None and child.poll() is not None
        supervisor = state.supervisor()
        if supervisor is not None and supervisor["phase"] == "ready":
            endpoints = Endpoints.load(state)
            assert endpoints is not None
            return endpoints
        if gone or (child is None and supervisor is None):
            raise StartError(state.last_failure() or read_tail(state.logs / "supervisor.log"))
        await asyncio.sleep(_POLL_SECONDS)


def down(settings: Settings | None = None) -> bool:
    """Stop the stack of this state folder, and whatever a crashed one left; answers whether there was any."""
    state = State((settings or Settings()).root)
    supervisor = state.supervisor()
    if supervisor is not None:
        _end_supervisor(state, supervisor["pid"])
    return bool(leftovers.end(state.root)) or supervisor is not None


def status(settings: Settings | None = None) -> dict[str, Any]:
    """What runs and what answers."""
    return asyncio.run(read_status(State((settings or Settings()).root)))


def _end_supervisor(state: State, pid: int) -> None:
    start = leftovers.identify(pid)
    deadline = time.monotonic() + _DOWN_SECONDS
    with contextlib.suppress(ProcessLookupError):
        if start is not None:
            os.kill(pid, signal.SIGTERM)
        # Not by waiting for the process: it is nobody's child and may stay a zombie for long.
        while start is not None and leftovers.identify(pid) == start:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS / 2)
    leftovers.end(state.root)


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment that gives them."""
    values = settings.model_copy(update={"state": settings.root}).model_dump(mode="json")
    return {f"OPTAIC_{name.upper()}": str(value) for name, value in values.items()}
