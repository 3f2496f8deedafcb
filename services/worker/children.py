"""Child processes forked from a warm forkserver, awaited without a thread; it knows nothing of what they run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from typing import Any

from worker import process_tree

_RESTART_SECONDS = 0.2
_context = multiprocessing.get_context("forkserver")


class Forkserver:
    """A process that has imported `preload` and forks children in milliseconds.

    It must stay free of gRPC connections, and of threads, since a fork copies only the one that forks. Polars has
    one that nothing turns off: it sleeps until spilled files are to be removed, and holds no lock meanwhile.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = list(preload)

    async def start(self) -> None:
        """Import everything; returns when the first child has run."""
        _context.set_forkserver_preload(self._preload)
        await (await self.run(_do_nothing)).wait()

    async def run(self, target: Callable[..., None], *arguments: object, is_tied: bool = True) -> Child:
        """Start one child; one that is tied dies with the forkserver."""
        for is_last in (False, True):
            try:
                process = await asyncio.to_thread(
                    _start, target, arguments, is_tied
                )  # it waits for the forkserver
            except (EOFError, ConnectionError):  # it died a moment ago; the next start makes a new one
                if is_last:
                    raise
                await asyncio.sleep(_RESTART_SECONDS)
            else:
                return Child(process)
        raise AssertionError("unreachable")

    @property
    def pid(self) -> int | None:
        """The forkserver's process, once started."""
        pid: int | None = _server()._forkserver_pid  # noqa: SLF001 - there is no public way
        return pid

    @property
    def tracker_pid(self) -> int | None:
        """Return the process that multiprocessing starts beside the forkserver."""
        pid: int | None = resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
        return pid

    async def stop(self) -> None:
        """End the forkserver; every process that is tied to it dies with it."""
        pid = self.pid
        if pid is not None:
            # By hand: closing its pipe, as multiprocessing would, waits for ever while a child hangs.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Child:
    """One child."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.was_sent_a_signal = False  # by `send`; an end that follows is no surprise
        self._ended = asyncio.get_running_loop().create_task(self._watch(), name=f"child-{process.pid}")

    @property
    def pid(self) -> int | None:
        """Its process."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for its end and return its exit code, negative after a signal. Cancelling this leaves the child alone."""
        return await asyncio.shield(self._ended)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.pid is not None and not self._ended.done():
            self.was_sent_a_signal = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _watch(self) -> int:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        sentinel = self._process.sentinel
        loop.add_reader(sentinel, ended.cancel)
        try:
            await asyncio.wait({ended})
        finally:
            loop.remove_reader(sentinel)
        # The sentinel is readable: this does not wait.
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        return 255 if code is None else code


def _start(target: Callable[..., None], arguments: Sequence[object], is_tied: bool) -> ForkServerProcess:
    server = _server()
    server.ensure_running()
    parent = server._forkserver_pid if is_tied else None  # noqa: SLF001 - there is no public way
    process = _context.Process(target=_run, args=(parent, target, *arguments))
    process.start()
    return process


def _run(forkserver_pid: int | None, target: Callable[..., None], *arguments: object) -> None:
    """Run in the child. If it is tied, the kernel kills it when the forkserver ends, which ends with the worker."""
    # Looking for cycles in what the forkserver has loaded would take long, and copy all its memory.
    gc.freeze()
    if forkserver_pid is not None:
        process_tree.die_with_parent(forkserver_pid)
    _let_go()
    target(*arguments)


def _let_go() -> None:
    """Close the pipe by which multiprocessing lets children keep the forkserver alive.

    Otherwise it would not notice the end of a worker that was killed while children run.
    """
    server = _server()
    os.close(server._forkserver_alive_fd)  # noqa: SLF001 - there is no public way
    server._forkserver_alive_fd = server._forkserver_pid = server._forkserver_address = None  # noqa: SLF001 - the same


def _server() -> Any:
    return forkserver._forkserver  # noqa: SLF001 - the module's own instance


def _do_nothing() -> None:
    """Show that children can be made."""
