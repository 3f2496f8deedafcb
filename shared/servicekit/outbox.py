"""Events written with the business rows in one transaction; publishing them is the relay's work."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from servicekit.events import Event
from servicekit.schema import outbox


@dataclass
class TransactionNotes:
    """What the open transaction wrote that somebody must hear of once it is committed."""

    events: list[Event] = field(default_factory=list)
    has_consumed: bool = False


current_notes: ContextVar[TransactionNotes | None] = ContextVar("servicekit_transaction", default=None)


async def append(connection: AsyncConnection, events: Sequence[Event]) -> None:
    """Write events into the transaction's outbox, in this order; their tokens go to the caller on commit."""
    if events:
        await connection.execute(sa.insert(outbox), [outbox_row(event) for event in events])
        note(events)


async def list_waiting(connection: AsyncConnection, resource_ids: Collection[str]) -> set[str]:
    """Return those of the transaction's tenant's resources of which an event waits to be published."""
    statement = sa.select(outbox.c.resource_id).distinct()
    return set((await connection.execute(statement.where(outbox.c.resource_id.in_(resource_ids)))).scalars())


def outbox_row(event: Event) -> dict[str, Any]:
    """Return the outbox columns of an event, for a statement that inserts it along with other rows."""
    return dict(vars(event))


def note(events: Sequence[Event]) -> None:
    """Count events as written by the open transaction; for a statement that inserted them by itself."""
    notes = current_notes.get()
    if notes is not None:
        notes.events.extend(events)
