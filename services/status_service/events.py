"""The events that status-service publishes; the use cases decide when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from optaic.rules.events import CHUNK_BYTES
from optaic.status.v1 import status_events_pb2, status_pb2
from servicekit.clock import Clock
from servicekit.events import BATCH, Event, make_event
from servicekit.ids import IdSource

_ITEM_OVERHEAD = 8  # field tag and length of one element


def chunk(
    tenant_id: str,
    revision: int,
    statuses: Iterable[status_pb2.InstanceStatus],
    deleted_instance_ids: Sequence[str],
    caused_by_event_ids: Sequence[str],
    clock: Clock,
    ids: IdSource,
) -> list[Event]:
    """Return the events of one change, each within the largest size that is sent."""
    messages: list[status_events_pb2.InstanceStatusesChanged] = []
    room = 0

    def take(size: int) -> status_events_pb2.InstanceStatusesChanged:
        nonlocal room
        if not messages or room < size:
            messages.append(
                status_events_pb2.InstanceStatusesChanged(
                    revision=revision, caused_by_event_ids=caused_by_event_ids
                )
            )
            room = CHUNK_BYTES - messages[-1].ByteSize()
        room -= size
        return messages[-1]

    for status in statuses:
        take(status.ByteSize() + _ITEM_OVERHEAD).instance_statuses.append(status)
    for instance_id in deleted_instance_ids:
        take(len(instance_id) + _ITEM_OVERHEAD).deleted_instance_ids.append(instance_id)
    return [
        make_event("status", tenant_id, message, "instance_statuses_changed", BATCH, clock, ids)
        for message in messages
    ]
