"""The queries that remove the history that is no longer kept, in bounded steps."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from servicekit.database import Connection

# The oldest kept revision of a tenant stays in `revision_times`; there is something to remove if the next one is too old as well.
# The tenants are found one by one in the index, because a tenant may have millions of revisions.
_LIST_TENANTS = sa.text("""
    with recursive tenants (tenant_id) as (
        (select tenant_id from revision_times order by tenant_id limit 1)
        union all
        select (select r.tenant_id from revision_times r where r.tenant_id > t.tenant_id order by r.tenant_id limit 1)
        from tenants t where t.tenant_id is not null
    )
    select t.tenant_id from tenants t cross join lateral (
        select change_time from revision_times r where r.tenant_id = t.tenant_id order by r.revision offset 1 limit 1
    ) r
    where r.change_time <= :before
""")
_START = sa.text("""
    insert into history_starts (tenant_id, revision, change_time)
    select tenant_id, revision, change_time from revision_times
    where tenant_id = :tenant_id and change_time <= :before order by change_time desc, revision desc limit 1
    on conflict (tenant_id) do update set revision = excluded.revision, change_time = excluded.change_time
        where excluded.revision > history_starts.revision
""")
# The times come last: as long as they are there, the tenant is found again.
_PRUNE = tuple(
    sa.text(f"""
        delete from {table} where ctid = any(array(
            select h.ctid from {table} h
            where h.tenant_id = :tenant_id
              and h.{column} (select s.revision from history_starts s where s.tenant_id = :tenant_id)
            limit :most))
    """)  # noqa: S608 - constants of ours
    for table, column in (
        ("flow_history", "until_revision <="),
        ("edge_history", "until_revision <="),
        ("instance_history", "until_revision <="),
        ("forgotten_versions", "until_revision <="),
        ("revision_times", "revision <"),
    )
)


async def list_tenants(connection: Connection, before: datetime) -> list[str]:
    """Return the tenants with history that is older than a time; use the infra login."""
    return list((await connection.execute(_LIST_TENANTS, {"before": before})).scalars())


async def start_history(connection: Connection, tenant_id: str, before: datetime) -> None:
    """Let a tenant's history begin with the state of a time; what is older can no longer be asked for."""
    await connection.execute(_START, {"tenant_id": tenant_id, "before": before})


async def prune(connection: Connection, tenant_id: str, most: int) -> bool:
    """Remove at most so many rows from before the beginning of a tenant's history; return whether there may be more."""
    for statement in _PRUNE:
        removed = (await connection.execute(statement, {"tenant_id": tenant_id, "most": most})).rowcount
        if removed == most:
            return True
        most -= removed
    return False
