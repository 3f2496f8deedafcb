"""The periodic work of a worker: remove the data of deleted instances; what a store does there runs in another process."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from worker.config import Settings
from worker.data_sweep import sweep
from worker.isolation import StartGuardian

_FIRST_SECONDS = 60.0
_log = structlog.get_logger(__name__)


async def remove_leftovers(settings: Settings, start: StartGuardian, stop: asyncio.Event) -> None:
    """Look for leftovers at intervals, until `stop` is set."""
    pause = min(_FIRST_SECONDS, settings.data_removal_interval_seconds)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()
        if stop.is_set():
            return
        pause = settings.data_removal_interval_seconds
        try:
            await sweep(settings, start)
        except Exception as error:  # noqa: BLE001 - no memory, no process: it is tried again
            _log.warning("data of deleted instances not looked for", error=repr(error))
