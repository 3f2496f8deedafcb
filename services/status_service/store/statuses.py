"""The queries of the present statuses of instances."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from servicekit.database import Connection
from status_service.store.statements import any_of, insert, insert_of, select_of
from status_service.store.tables import instance_statuses

_UPSERT_STATUSES = insert_of(instance_statuses, is_upsert=True)


@dataclass(frozen=True)
class StatusRow:
    """The status of an instance as it is now; `body` is the message without revision and time."""

    instance_id: str
    project_id: str
    kind: str
    status: str
    revision: int
    update_time: datetime
    body: bytes


async def get_statuses(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> dict[str, StatusRow]:
    """Return the statuses of those instances that have one."""
    rows = await connection.execute(select_of(instance_statuses, tenant_id, instance_ids))
    return {row.instance_id: _status_row(row) for row in rows}


async def list_statuses(
    connection: Connection,
    tenant_id: str,
    limit: int,
    *,
    after: str = "",
    project_id: str = "",
    statuses: Sequence[str] = (),
    kinds: Sequence[str] = (),
    instance_ids: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> list[StatusRow]:
    """Return a page in the order of instance ids; an empty filter selects all. With `only`: of these projects."""
    table = instance_statuses.c
    query = sa.select(instance_statuses).where(table.tenant_id == tenant_id)
    if after:
        query = query.where(table.instance_id > after)
    if project_id:
        query = query.where(table.project_id == project_id)
    if only is not None:
        query = query.where(table.project_id.in_(sorted(only)))
    for column, wanted in ((table.status, statuses), (table.kind, kinds), (table.instance_id, instance_ids)):
        if wanted:
            query = query.where(column == any_of(wanted, column.type))
    rows = await connection.execute(query.order_by(table.instance_id).limit(limit))
    return [_status_row(row) for row in rows]


async def upsert_statuses(connection: Connection, tenant_id: str, rows: Sequence[StatusRow]) -> None:
    """Store new statuses."""
    await insert(connection, _UPSERT_STATUSES, tenant_id, [asdict(row) for row in rows])


async def locate_instances(connection: Connection, tenant_id: str, ids: Collection[str]) -> dict[str, str]:
    """Return the project of each of the ids that is an instance's."""
    table = instance_statuses.c
    columns = (table.instance_id, table.project_id)
    query = select_of(instance_statuses, tenant_id, ids).with_only_columns(*columns)
    return {row.instance_id: row.project_id for row in (await connection.execute(query)).all()}


def _status_row(row: sa.Row[Any]) -> StatusRow:
    names = StatusRow.__dataclass_fields__
    return StatusRow(*(getattr(row, name) for name in names))
