"""The queries of the history of statuses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa

from servicekit.database import Connection
from status_service.store.statements import insert, insert_of, select_of
from status_service.store.tables import status_history

_INSERT_TRANSITIONS = insert_of(status_history, is_upsert=False)


@dataclass(frozen=True)
class TransitionRow:
    """One entry of an instance's history."""

    instance_id: str
    revision: int
    from_status: str
    to_status: str
    create_time: datetime
    caused_by_run_id: str


async def insert_transitions(connection: Connection, tenant_id: str, rows: Sequence[TransitionRow]) -> None:
    """Append to the histories of instances."""
    await insert(connection, _INSERT_TRANSITIONS, tenant_id, [asdict(row) for row in rows])


async def list_since(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> dict[str, datetime]:
    """Return since when each of the instances has had its status."""
    table = status_history.c
    query = select_of(status_history, tenant_id, instance_ids).with_only_columns(
        table.instance_id, sa.func.max(table.create_time).label("since_time")
    )
    query = query.where(table.from_status != table.to_status).group_by(table.instance_id)
    return {row.instance_id: row.since_time for row in await connection.execute(query)}


async def list_transitions(
    connection: Connection, tenant_id: str, instance_id: str, before: int | None, limit: int
) -> list[TransitionRow]:
    """Return a page of an instance's history, newest first."""
    table = status_history.c
    query = sa.select(status_history).where(table.tenant_id == tenant_id, table.instance_id == instance_id)
    if before is not None:
        query = query.where(table.revision < before)
    rows = await connection.execute(query.order_by(table.revision.desc()).limit(limit))
    return [
        TransitionRow(*(getattr(row, name) for name in TransitionRow.__dataclass_fields__)) for row in rows
    ]
