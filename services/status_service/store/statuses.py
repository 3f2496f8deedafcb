"""The queries of the present statuses of instances."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from servicekit.coalescing import Coalesced
from servicekit.database import Connection, Database
from status_service.store.statements import insert, insert_of, select_of
from status_service.store.tables import instance_statuses, instances

_GET_STATUSES = sa.text("""
    select cast(instance_id as text), project_id, kind, status, revision, update_time, body, since_time, cause_kinds
    from instance_statuses where tenant_id = :tenant_id and instance_id = any(cast(:instance_ids as uuid[]))
""")
# Of the columns that clients see alone: reading the others takes as long as reading the status.
_FETCH_STATUSES = sa.text("""
    select cast(instance_id as text), body, revision, update_time, since_time
    from instance_statuses where tenant_id = :tenant_id and instance_id = any(cast(:instance_ids as uuid[]))
""")
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


class ShownStatus(NamedTuple):
    """The status of an instance as clients see it; `body` is the message without revision and times."""

    instance_id: str
    body: bytes
    revision: int
    update_time: datetime
    since_time: datetime | None


async def get_statuses(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> dict[str, StatusRow]:
    """Return the statuses of those instances that have one."""
    rows = await connection.execute(_GET_STATUSES, _parameters(tenant_id, instance_ids))
    return {
        row[0]: StatusRow(*(*values, None if kinds is None else tuple(kinds)))
        for row in rows
        for *values, kinds in [row]
    }


async def fetch_statuses(
    database: Database, tenant_id: str, instance_ids: Collection[str]
) -> dict[str, ShownStatus]:
    """Return what clients see of those instances that have a status, in a single round trip."""
    rows = await database.fetch(tenant_id, _FETCH_STATUSES, _parameters(tenant_id, instance_ids))
    return {row[0]: ShownStatus._make(row) for row in rows}


def _parameters(tenant_id: str, instance_ids: Collection[str]) -> dict[str, object]:
    return {"tenant_id": tenant_id, "instance_ids": list(instance_ids)}


class SharedReads:
    """Reads of single statuses: callers of a tenant that ask at the same time share a statement."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._of_tenants: dict[str, Coalesced[str, ShownStatus]] = {}

    async def fetch_status(self, tenant_id: str, instance_id: str) -> ShownStatus | None:
        """Return the status of an instance as it is after this call began; None if it has none."""
        reads = self._of_tenants.get(tenant_id)
        if reads is None:
            reads = self._of_tenants[tenant_id] = Coalesced(
                lambda instance_ids: fetch_statuses(self._database, tenant_id, instance_ids)
            )
        row = await reads.read(instance_id, instance_id)
        if row is None:  # or the caller that read for all has given up
            row = (await fetch_statuses(self._database, tenant_id, [instance_id])).get(instance_id)
        return row


async def upsert_statuses(connection: Connection, tenant_id: str, rows: Sequence[StatusRow]) -> None:
    """Store new statuses."""
    await insert(connection, _UPSERT_STATUSES, tenant_id, [asdict(row) for row in rows])


async def locate_instances(connection: Connection, tenant_id: str, ids: Collection[str]) -> dict[str, str]:
    """Return the project of each of the ids that is or was an instance's."""
    columns = (instances.c.instance_id, instances.c.project_id)
    query = select_of(instances, tenant_id, ids).with_only_columns(*columns)
    query = query.where(instances.c.project_id != "")
    return {row.instance_id: row.project_id for row in (await connection.execute(query)).all()}


def status_row(row: sa.Row[Any]) -> StatusRow:
    """Return a row of the table as a value."""
    values = {name: getattr(row, name) for name in StatusRow.__dataclass_fields__}
    kinds = values["cause_kinds"]
    return StatusRow(**{**values, "cause_kinds": None if kinds is None else tuple(kinds)})
