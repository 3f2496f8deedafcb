"""Write events in the transaction of the rows that they describe; the relay publishes them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from servicekit.direct import send
from servicekit.events import Event
from servicekit.schema import outbox

_APPEND = sa.text("""
    insert into outbox (event_id, tenant_id, subject, type, source, resource_id, time, payload, traceparent)
    values (:event_id, :tenant_id, :subject, :type, :source, :resource_id, :time, :payload, :traceparent)
""")

# For a statement that inserts events with other rows, in their order; `parameters_of` has its parameters but the tenant's.
INSERT_EVENTS = """
    insert into outbox (tenant_id, event_id, subject, type, source, resource_id, time, payload, traceparent)
    select :tenant_id, event_id, subject, type, source, resource_id, time, payload, traceparent
    from unnest(cast(:event_ids as uuid[]), cast(:event_subjects as text[]), cast(:event_types as text[]),
        cast(:event_sources as text[]), cast(:event_resource_ids as text[]), cast(:event_times as timestamptz[]),
        cast(:event_payloads as bytea[]), cast(:event_traceparents as text[])) with ordinality
        as event (event_id, subject, type, source, resource_id, time, payload, traceparent, place)
    order by place
"""


@dataclass
class TransactionNotes:
    """The notes of an open transaction: what must be announced after its commit."""

    events: list[Event] = field(default_factory=list)
    has_unawaited: bool = False  # events that no service receives, so that nobody waits until one has
    has_consumed: bool = False


current_notes: ContextVar[TransactionNotes | None] = ContextVar("servicekit_transaction", default=None)


async def append(connection: AsyncConnection, events: Sequence[Event], *, is_awaited: bool = True) -> None:
    """Write events into the outbox in this order; after the commit their tokens go to the caller.

    Events that no service receives are not `is_awaited`: a read with their tokens would wait in vain.
    """
    if events:
        rows = [outbox_row(event) for event in events]
        if len(rows) == 1:
            await send(connection, _APPEND, rows[0])
        else:
            await connection.execute(_APPEND, rows)
        if is_awaited:
            note(events)
        elif (notes := current_notes.get()) is not None:
            notes.has_unawaited = True


async def list_waiting(connection: AsyncConnection, resource_ids: Collection[str]) -> set[str]:
    """Return those of the tenant's resources for which an event still waits to be published."""
    statement = sa.select(outbox.c.resource_id).distinct()
    return set((await connection.execute(statement.where(outbox.c.resource_id.in_(resource_ids)))).scalars())


def outbox_row(event: Event) -> dict[str, Any]:
    """Convert an event into columns of the outbox, for a statement that inserts it with other rows."""
    return dict(vars(event))


def parameters_of(events: Sequence[Event]) -> dict[str, Any]:
    """Return the parameters of `INSERT_EVENTS`; the caller notes the events afterwards."""
    return {
        "event_ids": [event.event_id for event in events],
        "event_subjects": [event.subject for event in events],
        "event_types": [event.type for event in events],
        "event_sources": [event.source for event in events],
        "event_resource_ids": [event.resource_id for event in events],
        "event_times": [event.time for event in events],
        "event_payloads": [event.payload for event in events],
        "event_traceparents": [event.traceparent for event in events],
    }


def note(events: Sequence[Event]) -> None:
    """Note events that a statement of the open transaction has inserted by itself."""
    notes = current_notes.get()
    if notes is not None:
        notes.events.extend(events)
