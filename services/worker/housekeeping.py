"""The periodic work of a worker: remove the data of deleted instances, by another process, and files that no run and no version has."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from worker.config import Settings
from worker.data_sweep import sweep
from worker.isolation import StartGuardian
from worker.leftovers.memory import Memory
from worker.leftovers.sweeping import sweep_leftovers

_FIRST_REMOVAL, _FIRST_SWEEP = 60.0, 3600.0  # seconds
_log = structlog.get_logger(__name__)


async def keep_house(settings: Settings, start: StartGuardian, stop: asyncio.Event) -> None:
    """Look for what is to be removed at intervals, until `stop` is set."""
    memory = Memory()
    async with asyncio.TaskGroup() as group:
        group.create_task(
            _repeat(
                lambda: sweep(settings, start),
                settings.data_removal_interval_seconds,
                _FIRST_REMOVAL,
                stop,
                "data of deleted instances not looked for",
            )
        )
        if settings.leftover_sweep != "off":
            group.create_task(
                _repeat(
                    lambda: sweep_leftovers(
                        settings, is_removing=settings.leftover_sweep == "remove", memory=memory, stop=stop
                    ),
                    settings.leftover_sweep_interval_seconds,
                    _FIRST_SWEEP,
                    stop,
                    "leftovers not looked for",
                )
            )


async def _repeat(
    work: Callable[[], Awaitable[object]], interval: float, first: float, stop: asyncio.Event, failed: str
) -> None:
    pause = min(first, interval)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()
        if stop.is_set():
            return
        pause = interval
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - no memory, no process, a service away: it is tried again
            _log.warning(failed, error=repr(error))
