"""The queries of the log that watches read, and of the tenants' revisions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from servicekit.database import Connection, Database
from servicekit.direct import Sent, send
from status_service.store.tables import tenant_revisions

_LOCK_REVISION = sa.text("""
    insert into tenant_revisions (tenant_id, revision) values (:tenant_id, 0)
    on conflict (tenant_id) do update set revision = tenant_revisions.revision returning revision, lineage_revision
""")
_COMPACT = sa.text("""
    with due as (
        select tenant_id, least(revision - :retention, compacted_revision + :step) as compacted_revision
        from tenant_revisions where revision - :retention > compacted_revision
        order by random() limit 1 for update skip locked -- so that no tenant has to wait for another's backlog
    ), deleted as (
        delete from status_changes using due
        where status_changes.tenant_id = due.tenant_id and status_changes.revision <= due.compacted_revision
    )
    update tenant_revisions set compacted_revision = due.compacted_revision from due
    where tenant_revisions.tenant_id = due.tenant_id returning 1
""")
_FETCH_CHANGES = sa.text("""
    with reach as (
        select coalesce(max(revision), 0), coalesce(max(compacted_revision), 0) from tenant_revisions
        where tenant_id = :tenant_id
    ), changes as (
        select revision, cast(instance_id as text), project_id, is_deleted, update_time, body, since_time from status_changes
        where tenant_id = :tenant_id and revision > :after order by revision limit :most
    )
    select reach.*, changes.* from reach left join changes on true order by changes.revision
""")


@dataclass(frozen=True)
class ChangeRow:
    """One entry of the log that watches read."""

    revision: int
    instance_id: str
    project_id: str
    is_deleted: bool
    update_time: datetime
    body: bytes
    since_time: datetime | None


@dataclass(frozen=True)
class Revisions:
    """A tenant's newest revision, and the newest one that was compacted."""

    revision: int = 0
    compacted_revision: int = 0


async def lock_revision(connection: Connection, tenant_id: str) -> Sent:
    """Serialize with every other change of the tenant's statuses, from the next statement on.

    The row sent has the newest revision of the tenant, and that of lineage.
    """
    return await send(connection, _LOCK_REVISION, {"tenant_id": tenant_id})


async def get_revisions(connection: Connection, tenant_id: str) -> Revisions:
    """Return how far the tenant's changes reach, forwards and backwards."""
    table = tenant_revisions.c
    query = sa.select(table.revision, table.compacted_revision).where(table.tenant_id == tenant_id)
    row = (await connection.execute(query)).one_or_none()
    return Revisions(row.revision, row.compacted_revision) if row else Revisions()


async def fetch_changes(
    database: Database, tenant_id: str, after: int, limit: int
) -> tuple[Revisions, list[ChangeRow]]:
    """Return how far the tenant's changes reach, and those after a revision, in order; all of one snapshot."""
    parameters = {"tenant_id": tenant_id, "after": after, "most": limit}
    rows = await database.fetch(tenant_id, _FETCH_CHANGES, parameters)
    changes = [ChangeRow(*row) for _, _, *row in rows if row[0] is not None]
    return Revisions(*rows[0][:2]), changes


async def compact_changes(connection: Connection, retention: int, step: int) -> bool:
    """Drop changes beyond the retention, of one tenant and at most `step`; return whether there were any."""
    return (await connection.execute(_COMPACT, {"retention": retention, "step": step})).first() is not None
