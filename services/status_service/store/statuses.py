"""The queries of the present statuses of instances."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from servicekit.database import Connection
from status_service.store.statements import insert, insert_of, select_of
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
    # None in both: the row is that of an earlier release.
    since_time: datetime | None
    cause_kinds: tuple[str, ...] | None


async def get_statuses(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> dict[str, StatusRow]:
    """Return the statuses of those instances that have one."""
    rows = await connection.execute(select_of(instance_statuses, tenant_id, instance_ids))
    return {row.instance_id: status_row(row) for row in rows}


async def upsert_statuses(connection: Connection, tenant_id: str, rows: Sequence[StatusRow]) -> None:
    """Store new statuses."""
    await insert(connection, _UPSERT_STATUSES, tenant_id, [asdict(row) for row in rows])


async def locate_instances(connection: Connection, tenant_id: str, ids: Collection[str]) -> dict[str, str]:
    """Return the project of each of the ids that is an instance's."""
    table = instance_statuses.c
    columns = (table.instance_id, table.project_id)
    query = select_of(instance_statuses, tenant_id, ids).with_only_columns(*columns)
    return {row.instance_id: row.project_id for row in (await connection.execute(query)).all()}


def status_row(row: sa.Row[Any]) -> StatusRow:
    """Return a row of the table as a value."""
    values = {name: getattr(row, name) for name in StatusRow.__dataclass_fields__}
    kinds = values["cause_kinds"]
    return StatusRow(**{**values, "cause_kinds": None if kinds is None else tuple(kinds)})
