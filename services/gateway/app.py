"""Connect the parts of gateway; decide nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from gateway import openapi
from gateway.backends import Backends
from gateway.caller import Callers
from gateway.config import Settings
from gateway.connect_adapter import Application
from gateway.console_files import Console
from gateway.door import Door, Page
from gateway.downloads import Downloads
from gateway.granian_adapter import HttpServer
from gateway.methods import find_methods
from gateway.questions import Questions
from gateway.reads import Reads
from optaic import storage
from servicekit import logging, runtime
from servicekit.clock import Clock, SystemClock

NAME = "gateway"
_GREETING = b"OptAIC. The console is at /console/ for browsers. The API is described at /openapi.json; /readyz says which services answer.\n"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Gateway:
    """A wired gateway that does not run yet."""

    server: HttpServer
    door: Door
    downloads: Downloads
    backends: Backends

    async def stop(self) -> None:
        """End the calls, then the server, then the connections."""
        await self.door.stop()
        await self.server.stop()
        self.downloads.close()
        await self.backends.close()


def build(settings: Settings, clock: Clock | None = None) -> Gateway:
    """Build the gateway without starting it; the connections to the services are made on the running loop.

    Raises:
        OSError: A file of certificates cannot be read.
    """
    backends, callers, methods = Backends(settings), Callers(), find_methods()
    document = openapi.Document(methods)

    async def ready() -> tuple[int, bytes]:
        answers = backends.are_ready()
        return 200 if all(answers.values()) else 503, json.dumps(answers).encode()

    async def describe() -> tuple[int, bytes]:
        return 200, await asyncio.to_thread(document.read)

    pages = {
        "/": Page("text/plain; charset=utf-8", _constant(_GREETING)),
        "/healthz": Page("text/plain; charset=utf-8", _constant(b"ok\n")),
        "/readyz": Page("application/json", ready),
        "/openapi.json": Page("application/json", describe),
    }
    if settings.s3_access_key_id or settings.s3_endpoint:
        storage.install(storage.Access(**settings.describe_access()))
    questions = Questions(backends, callers)
    downloads = Downloads(settings, questions, clock or SystemClock())
    reads = Reads(settings, questions, downloads, callers)
    calls = Application(methods, backends, callers, settings.stream_seconds)
    door = Door(settings, pages, methods, calls, downloads, reads, callers, Console())
    return Gateway(HttpServer(settings, door), door, downloads, backends)


def _constant(body: bytes) -> Callable[[], Awaitable[tuple[int, bytes]]]:
    async def read() -> tuple[int, bytes]:
        return 200, body

    return read


async def main(stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        RuntimeError: The server ended by itself; the process must be started again.
    """
    settings = Settings()
    logging.configure(settings.log_level, NAME)
    gateway = build(settings)
    runtime.keep_loaded()
    await gateway.server.start()
    _log.info("serving", url=gateway.server.url)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    serving = asyncio.create_task(gateway.server.wait(), name="serving")
    background = {
        asyncio.create_task(runtime.give_back_memory(), name="memory"),
        asyncio.create_task(gateway.door.report_refusals(), name="refusals"),
    }
    try:
        done, _ = await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving in done:
            raise RuntimeError("the HTTP server ended")
    finally:
        for task in (stopping, serving, *background):
            task.cancel()
        await gateway.stop()
        _log.info("stopped", url=gateway.server.url)
