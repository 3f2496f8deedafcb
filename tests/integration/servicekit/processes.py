"""One process of the sample service as far as a test needs it: database, broker, background work."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from integration.servicekit.sample import STREAMS
from servicekit.broker import Broker
from servicekit.database import Database
from servicekit.settings import ServiceSettings


@asynccontextmanager
async def replica(settings: ServiceSettings) -> AsyncIterator[tuple[Database, Broker]]:
    """Open a database and a broker."""
    database, broker = Database(settings), Broker(settings, STREAMS)
    await broker.connect()
    try:
        yield database, broker
    finally:
        await broker.close()
        await database.close()


@asynccontextmanager
async def running(
    *functions: Callable[[], Coroutine[Any, Any, None]],
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run coroutines beside the block."""
    tasks = [asyncio.create_task(function()) for function in functions]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
