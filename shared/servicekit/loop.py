"""Run a level-triggered loop: each step looks at the present state and never relies on an announcement."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from servicekit.backoff import backoff

_log = structlog.get_logger(__name__)
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 30.0


class Loop:
    """A loop that runs `step` until it returns False (nothing is left), then waits for `wake()` or the interval."""

    def __init__(self, name: str, interval: float, step: Callable[[], Awaitable[bool]]) -> None:
        self.name = name
        self._interval = interval
        self._step = step
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Run the step now; many calls in a row lead to one step."""
        self._woken.set()

    async def run(self) -> None:
        """Run for ever; log a failing step and try it again, after longer and longer waits."""
        failures = 0
        while True:
            self._woken.clear()
            try:
                while await self._step():
                    pass
                failures = 0
            except Exception:  # noqa: BLE001 - a level-triggered loop outlives every fault
                failures += 1
                wait = backoff(failures, first=_FIRST_BACKOFF, longest=_LONGEST_BACKOFF)
                _log.exception("loop step failed", loop=self.name, retry_seconds=wait)
                await asyncio.sleep(wait)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._woken.wait()
