"""What every use case needs; it is built once, in `app`."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from instance_service.events import Events
from servicekit.clock import Clock
from servicekit.database import Database
from servicekit.ids import IdSource


class Signal:
    """Wakes everybody who waits for something to have happened in this process."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake them; who comes later waits for the next time."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return when notified, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for may lose a cancellation on Python 3.11
                await self._event.wait()


@dataclass(frozen=True)
class Environment:
    """Database, time and ids, and the signal that a reconciler has activated something."""

    database: Database
    clock: Clock
    ids: IdSource
    activation_wait_seconds: float = 2.0
    activated: Signal = field(default_factory=Signal)

    def events(self, tenant_id: str) -> Events:
        """Return the maker of a tenant's events."""
        return Events(tenant_id, self.clock, self.ids)
