"""Start a wired service, serve it and stop it gracefully; building it is the service's own part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from servicekit import logging, migrations, runtime
from servicekit.server import Server
from servicekit.settings import ServiceSettings
from servicekit.tasks import end

_STOP_TIMEOUT = 5.0
_log = structlog.get_logger(__name__)
_Dependencies = TypeVar("_Dependencies")


@dataclass(frozen=True)
class App(Generic[_Dependencies]):
    """A wired service that does not run yet.

    The functions of `open` are called in order before the first call is served, those of `close` after the last one.
    The functions of `background`, by name, run in between and never return.
    """

    deps: _Dependencies
    server: Server
    background: Mapping[str, Callable[[], Coroutine[Any, Any, None]]]
    open: Sequence[Callable[[], Awaitable[None]]] = ()
    close: Sequence[Callable[[], Awaitable[None]]] = ()


async def start(
    stop: asyncio.Event, name: str, settings: ServiceSettings, build: Callable[[], Awaitable[App[Any]]]
) -> None:
    """Migrate the database of a service, build the service, and serve until `stop` is set.

    `name` is `<noun>-service`; the package with its migrations is `<noun>_service`.
    """
    logging.configure(settings.log_level, name)
    await migrations.migrate(settings.database_owner_url, name.replace("-", "_"))
    app = await build()
    runtime.keep_loaded()
    await serve(stop, app)


async def serve(stop: asyncio.Event, app: App[Any]) -> None:
    """Serve until `stop` is set: then drain calls, end the background work, and close.

    Raises:
        RuntimeError: A background coroutine ended by itself; the process must be started again.
    """
    tasks: dict[asyncio.Task[Any], str] = {}
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        for open_one in app.open:
            await open_one()
        await app.server.start()
        for name, function in {**app.background, "memory": runtime.give_back_memory}.items():
            tasks[asyncio.create_task(function(), name=name)] = name
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            raise RuntimeError(f"background work {tasks[task]!r} ended") from _exception_of(task)
    finally:
        stopping.cancel()
        await app.server.stop()
        for task in await end(tasks, _STOP_TIMEOUT):
            _log.warning("background work does not end", name=tasks[task])
        for close_one in app.close:
            try:
                async with asyncio.timeout(_STOP_TIMEOUT):
                    await close_one()
            except Exception as error:  # noqa: BLE001 - the others are closed all the same
                _log.warning("close failed", error=repr(error))


def _exception_of(task: asyncio.Task[Any]) -> BaseException | None:
    return None if task.cancelled() else task.exception()
