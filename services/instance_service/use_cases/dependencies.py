"""The dependencies that every use case receives; `app` makes them once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from instance_service.events import Events
from instance_service.store.usage import NO_LIMITS, Usage
from optaic.common.v1.flow_pb2 import FlowRef
from servicekit.backoff import backoff
from servicekit.clock import Clock
from servicekit.database import Connection, Database
from servicekit.ids import IdSource
from servicekit.signing import Signer

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Signal:
    """Wake the calls in this process that wait for a change of an instance."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)
        self.is_closed = False

    def close(self) -> None:
        """Wake all waiting calls and end their waiting."""
        self.is_closed = True
        for instance_id in self._listeners:
            self.notify(instance_id)

    def notify(self, instance_id: str) -> None:
        """Wake the calls that wait for an instance."""
        for event in self._listeners.get(instance_id, ()):
            event.set()

    @contextlib.contextmanager
    def listening(self, instance_id: str) -> Iterator[Callable[[float], Awaitable[None]]]:
        """Provide a function that waits until the instance may have changed, or until the given seconds have passed.

        It returns when notified, and at intervals, because changes made by another replica are not announced here.
        """
        event, silences = asyncio.Event(), 0

        async def wait(seconds: float) -> None:
            nonlocal silences
            pause = backoff(silences + 1, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
            try:
                # Do not use wait_for here: on Python 3.11 it may lose a cancellation.
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
    """The database, the clock, the source of ids, the signer, settings, and how calls wait for an instance."""

    database: Database
    clock: Clock
    ids: IdSource
    signer: Signer
    installation_id: str
    activation_wait_seconds: float = 2.0
    activated: Signal = field(default_factory=Signal)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(500))  # for calls that wait
    data_grace_seconds: float = 604800.0  # how long the data of deleted instances is kept
    limits: Usage = NO_LIMITS  # of what one tenant may have stored; 0: no limit
    built_in: set[str] = field(default_factory=set)  # content hashes of the built-in library
    rehearsal: Connection | None = None  # the use case that opened it rolls it back
    moved_flows: list[FlowRef] | None = None  # whose fingerprint changes; collected in rehearsals only
    is_lenient: bool = False  # whether instances may violate rules; true in rehearsals only

    def events(self, tenant_id: str) -> Events:
        """Return the factory of a tenant's events."""
        return Events(tenant_id, self.clock, self.ids)
