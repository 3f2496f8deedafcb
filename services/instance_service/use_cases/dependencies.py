"""What every use case needs; it is built once, in `app`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from instance_service.events import Events
from instance_service.store.tables import Connection
from servicekit.backoff import backoff
from servicekit.clock import Clock
from servicekit.database import Database
from servicekit.ids import IdSource

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Signal:
    """Wakes those who wait for something to have happened to one instance in this process."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)
        self.is_closed = False

    def close(self) -> None:
        """Wake all: nobody is to wait any more."""
        self.is_closed = True
        for instance_id in self._listeners:
            self.notify(instance_id)

    def notify(self, instance_id: str) -> None:
        """Wake who listens to an instance."""
        for event in self._listeners.get(instance_id, ()):
            event.set()

    @contextlib.contextmanager
    def listening(self, instance_id: str) -> Iterator[Callable[[float], Awaitable[None]]]:
        """Lend a function that returns when it is time to look, or after so many seconds.

        It is time when notified, and now and then besides: what another replica does is not announced here.
        """
        event, silences = asyncio.Event(), 0

        async def wait(seconds: float) -> None:
            nonlocal silences
            pause = backoff(silences + 1, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
            try:
                # Not wait_for, which may lose a cancellation on Python 3.11.
                async with asyncio.timeout(min(seconds, pause)):
                    await event.wait()
            except TimeoutError:
                silences += 1
            else:
                event.clear()
                silences = 0

        self._listeners[instance_id].add(event)
        try:
            yield wait
        finally:
            self._listeners[instance_id].discard(event)
            if not self._listeners[instance_id]:
                del self._listeners[instance_id]


@dataclass(frozen=True)
class Dependencies:
    """Database, time and ids, which installation this is, and how calls wait for an instance to be activated."""

    database: Database
    clock: Clock
    ids: IdSource
    installation_id: str
    activation_wait_seconds: float = 2.0
    activated: Signal = field(default_factory=Signal)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(500))  # of calls that wait

    data_grace_seconds: float = 604800.0  # for which the data of what is gone stays
    built_in: set[str] = field(default_factory=set)  # hashes of what the service itself brings
    rehearsal: Connection | None = None  # what is changed here is taken back by who opened it
    is_lenient: bool = (
        False  # rules that an instance breaks do not keep it from being made; in rehearsals only
    )

    def events(self, tenant_id: str) -> Events:
        """Return the maker of a tenant's events."""
        return Events(tenant_id, self.clock, self.ids)
