"""A replica of run-service that does one thing: it lets flows follow their upstream flows. A process of its own, which can be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.clock import MovingClock
from support.endings import end_with_the_tests

if TYPE_CHECKING:
    from run_service.config import Settings

_DEADLINE = 60.0
_processes = multiprocessing.get_context("forkserver")
# Forked from a process that has imported it all, a start takes tenths of a second. (`pytest` is what multiprocessing
# imports anew into each child where the tests were started by `python -m pytest`.)
_processes.set_forkserver_preload(["run_service.app", "pytest"])


class Follower:
    """Started by `start`, as often as wanted."""

    def __init__(self, settings: Settings, clock: MovingClock, log: Path) -> None:
        self._arguments = (settings, clock, str(log))
        self._process: Any = None

    async def start(self) -> None:
        """Start the process, unless it lives."""
        if self._process is None or not self._process.is_alive():
            self._process = _processes.Process(target=_run, args=self._arguments)
            await asyncio.to_thread(self._process.start)

    def kill(self) -> None:
        """End it as a crash would."""
        os.kill(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End it for good."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.join, _DEADLINE)


def _run(settings: Settings, clock: MovingClock, log: str) -> None:
    """Be the replica: in a child process."""
    end_with_the_tests(log)
    from run_service.app import build  # noqa: PLC0415 - the tests' own process imports it when it needs it
    from servicekit.app import serve  # noqa: PLC0415 - the same
    from servicekit.runtime import run  # noqa: PLC0415 - the same
    from support.orchestrator_runs import FakeOrchestrator  # noqa: PLC0415 - the same

    async def main(stop: asyncio.Event) -> None:
        app = await build(settings, FakeOrchestrator(), clock=clock)
        # The test's own run-service does the rest, with the orchestrator that it knows.
        background = {"auto_refreshes": app.background["auto_refreshes"]}
        await serve(stop, replace(app, background=background))

    run(main)
