"""End asyncio tasks reliably."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

_REPEAT = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]], timeout: float) -> set[asyncio.Task[Any]]:  # noqa: ASYNC109 - what is left is returned, not raised
    """Cancel tasks and wait for them; return those that still run after `timeout` seconds.

    One cancellation is not enough. Up to Python 3.11 `asyncio.wait_for`, which the broker's client uses often, loses a
    cancellation that comes together with the result it waits for.
    """
    running = {task for task in tasks if not task.done()}
    limit = time.monotonic() + timeout
    while running and time.monotonic() < limit:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=min(_REPEAT, timeout))
    return running


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let a coroutine run beside the block, and end it with the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await end({task}, _REPEAT)
