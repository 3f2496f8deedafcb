"""Write the statuses that changed, with the log, the history and the events of their changes, in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from servicekit.database import Connection
from servicekit.direct import send
from servicekit.events import Event
from servicekit.outbox import INSERT_EVENTS, note, parameters_of
from status_service.store.changes import ChangeRow
from status_service.store.history import TransitionRow
from status_service.store.positions import Position
from status_service.store.statements import arrays_of, insert_of
from status_service.store.statuses import StatusRow
from status_service.store.tables import instance_statuses, lineage_positions, status_changes, status_history

_WRITE = sa.text(f"""
    with status as ({insert_of(instance_statuses, is_upsert=True, prefix="status_").text}),
    change as ({insert_of(status_changes, is_upsert=False, prefix="change_").text}),
    entry as ({insert_of(status_history, is_upsert=False, prefix="entry_").text}),
    position as ({insert_of(lineage_positions, is_upsert=False, prefix="position_").text}),
    reach as (
        update tenant_revisions set revision = :revision, lineage_revision = :lineage_revision where tenant_id = :tenant_id
    )
    {INSERT_EVENTS}
""")  # noqa: S608 - our own names


async def write_outcome(
    connection: Connection,
    tenant_id: str,
    revision: int,
    lineage_revision: int,
    *,
    positions: Sequence[Position],
    statuses: Sequence[StatusRow],
    changes: Sequence[ChangeRow],
    transitions: Sequence[TransitionRow],
    events: Sequence[Event],
) -> None:
    """Store what follows from a batch of facts, and the tenant's newest revision, also that of lineage; its row must be locked."""
    parameters = {
        "tenant_id": tenant_id,
        "revision": revision,
        "lineage_revision": lineage_revision,
        **_arrays(Position, positions, "position_"),
        **_arrays(StatusRow, statuses, "status_"),
        **_arrays(ChangeRow, changes, "change_"),
        **_arrays(TransitionRow, transitions, "entry_"),
        **parameters_of(events),
    }
    await send(connection, _WRITE, parameters)
    note(events)


def _arrays(kind: Any, rows: Sequence[Any], prefix: str) -> dict[str, list[Any]]:
    return arrays_of(kind.__dataclass_fields__, [vars(row) for row in rows], prefix)
