"""instance-service as a process of its own behind gates, killed at a chosen moment and started again."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from support.endings import end_with_the_tests

_DEADLINE = 60.0
_CHANGES = ("os.mkdir", "os.rename", "os.rmdir", "os.remove")
_processes = multiprocessing.get_context("forkserver")
# Forked from a process that has imported it all, a start takes tenths of a second. (`pytest` is what multiprocessing
# imports anew into each child where the tests were started by `python -m pytest`.)
_processes.set_forkserver_preload(["instance_service.app", "pytest"])


class KillableService:
    """Started by `start`; what was killed starts again by itself, on the same port.

    `revived` is called between its death and its next start.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        gate_port: int,
        folder: Path,
        revived: Callable[[], Awaitable[None]],
    ) -> None:
        self._arguments = (dict(environment), gate_port, str(folder / "log"))
        self._revived = revived
        self._process: Any = None
        self._revival: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait until the process is there; it serves a moment later."""
        self._process = _processes.Process(target=_run, args=self._arguments)
        await asyncio.to_thread(self._process.start)

    def kill(self) -> None:
        """End it as a crash would; it is started again beside, once what it had open is closed."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._revival = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        await asyncio.to_thread(self._process.join, _DEADLINE)
        await self._revived()
        await self.start()

    async def stop(self) -> None:
        """End it for good."""
        if self._revival is not None:
            await self._revival
        self._process.kill()
        await asyncio.to_thread(self._process.join, _DEADLINE)


def _run(environment: dict[str, str], gate_port: int, log: str) -> None:
    """Be the service: in a child process, which asks at the gate before each change of the workspace."""
    end_with_the_tests(log)
    os.environ.update(environment)
    _ask_at(gate_port, environment["OPTAIC_EVIDENTLY_WORKSPACE"])
    from instance_service.app import main  # noqa: PLC0415 - the tests' own process has no need of it
    from servicekit.runtime import run  # noqa: PLC0415 - the same

    run(main)


def _ask_at(port: int, folder: str) -> None:
    """Hold every thread that is about to change something in the folder until the gate has answered."""
    gate, lock = socket.create_connection(("127.0.0.1", port)), threading.Lock()

    def is_change(event: str, arguments: tuple[Any, ...]) -> bool:
        if event in _CHANGES:
            path = os.fsdecode(arguments[0])
            return path.startswith(folder) or not path.startswith(
                "/"
            )  # relative to an open folder: of a tree
        if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(folder):
            return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        return False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if is_change(event, arguments):
            with lock:
                gate.sendall(f"{event} {Path(os.fsdecode(arguments[0])).name}\n".encode())
                gate.recv(1)

    sys.addaudithook(hook)
