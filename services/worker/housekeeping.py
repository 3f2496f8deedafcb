"""The periodic work of a worker: remove the data of deleted instances, in a separate process."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from worker.children import Forkserver
from worker.config import Settings

_FIRST_SECONDS = 60.0
_log = structlog.get_logger(__name__)


async def remove_leftovers(settings: Settings, forkserver: Forkserver, stop: asyncio.Event) -> None:
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
            await (await forkserver.run(_sweep, settings.log_level)).wait()
        except Exception as error:  # noqa: BLE001 - no memory, no process: it is tried again
            _log.warning("data of deleted instances not looked for", error=repr(error))


def _sweep(log_level: str) -> None:
    from worker.data_sweep import sweep_once  # noqa: PLC0415 - imports what computes, which the executor does not need

    sweep_once(log_level)
