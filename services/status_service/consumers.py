"""Pass each batch of events of one tenant to its use case, in the transaction of the consumer.

After the commit it passes the changes on to watchers and live subscribers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import structlog
from google.protobuf.message import Message

from optaic.instance.v1 import instance_events_pb2 as instance_events
from optaic.lineage.v1 import lineage_events_pb2 as lineage_events
from optaic.rules.events import (
    FLOW_WAIT_CHANGED,
    INSTANCE_EVENTS,
    LINEAGE_EVENTS,
    ROLE_BINDING_SUBJECTS,
    RUN_EVENTS,
    STREAMS,
)
from optaic.run.v1 import run_events_pb2 as run_events
from servicekit.bindings import make_consumer
from servicekit.broker import Broker
from servicekit.consumer import Consumer, Received
from servicekit.database import Connection
from status_service import conversion
from status_service.domain.board import Fact
from status_service.domain.statuses import has_status
from status_service.ports import LiveStatus, StatusPublisher
from status_service.use_cases.dependencies import Dependencies
from status_service.use_cases.facts import apply_facts

ACCESS_CONSUMER = "status-access"
INSTANCE_CONSUMER = "status-instance-events"
LINEAGE_CONSUMER = "status-lineage-events"
RUN_CONSUMER = "status-run-events"
RUN_SUBJECTS = (f"optaic.*.run.v1.{FLOW_WAIT_CHANGED}.*",)
LINEAGE_SUBJECTS = ("optaic.*.lineage.v1.flow_statuses_changed.>",)
_LIVE_BATCH = 500
_log = structlog.get_logger(__name__)

# The order of the events of one revision of an instance.
_RANKS: dict[type[Message], int] = {
    instance_events.InstanceCreated: 0,
    instance_events.InstanceUpdated: 1,
    instance_events.InstanceActivated: 2,
    instance_events.InstanceDeletionRequested: 3,
    instance_events.InstanceDeleted: 4,
}


def instance_fact(received: Received) -> Fact:
    """Convert an event of an instance into a fact; each of these events carries the whole instance."""
    message = received.message
    rank = _RANKS.get(type(message))
    if rank is None:
        return Fact(received.event.event_id)  # a definition's event concerns no status
    is_deleted = isinstance(message, instance_events.InstanceDeleted)
    instance = conversion.instance_of(message.instance, rank, is_deleted=is_deleted)  # type: ignore[attr-defined]  # all of them have it
    known = (instance,) if has_status(instance.kind) else ()
    return Fact(received.event.event_id, instances=known)


def lineage_fact(received: Received) -> Fact:
    """Convert an event about changed flows; it also names the events that lineage-service has applied."""
    message = received.message
    if not isinstance(message, lineage_events.FlowStatusesChanged):
        return Fact(received.event.event_id)
    return Fact(
        received.event.event_id,
        flows=conversion.flows_of(message),
        lineage_revision=message.revision,
        caused_by_run_id=message.caused_by_run_id,
        caused_by_event_ids=tuple(message.caused_by_event_ids),
    )


def run_fact(received: Received) -> Fact:
    """Convert an event of what a scheduled time waits for; lineage-service hears nothing of it, so it counts as seen here."""
    message = received.message
    if not isinstance(message, run_events.FlowWaitChanged):
        return Fact(received.event.event_id)
    return Fact(
        received.event.event_id,
        waits=conversion.wait_of(message),
        caused_by_event_ids=(received.event.event_id,),
    )


def build_consumers(deps: Dependencies, broker: Broker, live: LiveStatuses) -> list[Consumer]:
    """Build the consumers of this service; what they change goes to `live` after the commit."""

    def consumer(
        name: str, stream: str, subjects: Sequence[str], fact_of: Callable[[Received], Fact]
    ) -> Consumer:
        facts = FactConsumer(deps, fact_of, live)
        return Consumer(
            deps.database,
            broker,
            name=name,
            stream=stream,
            filter_subjects=subjects,
            apply=facts.apply,
            committed=facts.committed,
        )

    return [
        # Definitions' events too: a caller's write token of one of them must not wait in vain.
        consumer(
            INSTANCE_CONSUMER,
            INSTANCE_EVENTS,
            STREAMS[INSTANCE_EVENTS],
            instance_fact,
        ),
        consumer(
            LINEAGE_CONSUMER,
            LINEAGE_EVENTS,
            LINEAGE_SUBJECTS,
            lineage_fact,
        ),
        consumer(
            RUN_CONSUMER,
            RUN_EVENTS,
            RUN_SUBJECTS,
            run_fact,
        ),
        make_consumer(
            deps.database,
            broker,
            name=ACCESS_CONSUMER,
            stream=INSTANCE_EVENTS,
            filter_subjects=ROLE_BINDING_SUBJECTS,
        ),
    ]


class FactConsumer:
    """The consumer of one stream; it sends changes to listeners after the commit, never before."""

    def __init__(
        self,
        deps: Dependencies,
        fact_of: Callable[[Received], Fact],
        live: LiveStatuses,
    ) -> None:
        self._deps = deps
        self._fact_of = fact_of
        self._live = live
        self._pending: tuple[str, list[LiveStatus]] = ("", [])

    async def apply(self, connection: Connection, tenant_id: str, batch: Sequence[Received]) -> None:
        """Apply new events of one tenant, in stream order."""
        facts = [self._fact_of(received) for received in batch]
        statuses = await apply_facts(self._deps, connection, tenant_id, facts)
        self._pending = (tenant_id, statuses)

    def committed(self) -> None:
        """Announce what the last batch changed."""
        tenant_id, statuses = self._pending
        self._pending = ("", [])
        if statuses:
            self._deps.feed.wake()
            self._live.put(tenant_id, statuses)


class LiveStatuses:
    """A bounded buffer between commits and publishers; when it is full, the oldest messages are lost, and the log counts them."""

    def __init__(self, publishers: Sequence[StatusPublisher], buffer_size: int) -> None:
        self._publishers = publishers
        self._waiting = [deque[tuple[str, LiveStatus]](maxlen=buffer_size) for _ in publishers]
        self._woken = [asyncio.Event() for _ in publishers]
        self._lost = [0] * len(publishers)  # since the log said so last

    def put(self, tenant_id: str, statuses: Sequence[LiveStatus]) -> None:
        """Send soon, in this order."""
        for index, (waiting, woken) in enumerate(zip(self._waiting, self._woken, strict=True)):
            assert waiting.maxlen is not None
            self._lost[index] += max(0, len(waiting) + len(statuses) - waiting.maxlen)
            waiting.extend((tenant_id, status) for status in statuses)
            woken.set()

    async def run(self) -> None:
        """Send for ever; a slow or absent publisher delays only itself."""
        async with asyncio.TaskGroup() as group:
            for index in range(len(self._publishers)):
                group.create_task(self._send(index))

    async def _send(self, index: int) -> None:
        waiting, woken, publisher = self._waiting[index], self._woken[index], self._publishers[index]
        while True:
            await woken.wait()
            woken.clear()
            while waiting:
                if lost := self._lost[index]:
                    self._lost[index] = 0
                    _log.warning("live statuses lost", count=lost, error="OPTAIC_LIVE_BUFFER is full")
                tenant_id = waiting[0][0]
                batch: list[LiveStatus] = []
                while waiting and waiting[0][0] == tenant_id and len(batch) < _LIVE_BATCH:
                    batch.append(waiting.popleft()[1])
                try:
                    await publisher.publish(tenant_id, batch)
                except Exception as error:  # noqa: BLE001 - live messages may be lost; nothing may end this loop
                    _log.warning("live statuses lost", count=len(batch), error=repr(error))
