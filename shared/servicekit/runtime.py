"""A service's process: event loop, signals, start and graceful stop; it builds nothing itself."""

from __future__ import annotations

import asyncio
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any

import structlog
import uvloop

from redaction import redact
from servicekit.server import Server
from servicekit.tasks import end

_STOP_TIMEOUT = 5.0
_log = structlog.get_logger(__name__)


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main(stop)` on uvloop until it returns; SIGTERM and SIGINT set `stop`."""

    async def with_signals() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    sys.excepthook = _say_without_secrets
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(with_signals())


def _say_without_secrets(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Say what ended the process: drivers repeat the URLs that they were given."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


async def serve(
    stop: asyncio.Event,
    *,
    server: Server,
    background: Mapping[str, Callable[[], Coroutine[Any, Any, None]]],
    close: Sequence[Callable[[], Awaitable[None]]] = (),
) -> None:
    """Serve until `stop` is set: then drain calls, end the background work, and close in the given order.

    Raises:
        RuntimeError: A background coroutine ended by itself; the process must be started again.
    """
    tasks: dict[asyncio.Task[Any], str] = {}
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await server.start()
        for name, function in background.items():
            tasks[asyncio.create_task(function(), name=name)] = name
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            raise RuntimeError(f"background work {tasks[task]!r} ended") from _exception_of(task)
    finally:
        stopping.cancel()
        await server.stop()
        for task in await end(tasks, _STOP_TIMEOUT):
            _log.warning("background work does not end", name=tasks[task])
        for close_one in close:
            try:
                async with asyncio.timeout(_STOP_TIMEOUT):
                    await close_one()
            except Exception as error:  # noqa: BLE001 - the others are closed all the same
                _log.warning("close failed", error=repr(error))


def _exception_of(task: asyncio.Task[Any]) -> BaseException | None:
    return None if task.cancelled() else task.exception()
