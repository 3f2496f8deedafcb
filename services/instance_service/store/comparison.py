"""The queries for the comparison of instances with what other services know about them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from instance_service.store.tables import instances
from servicekit.database import Connection

_NEXT_TENANT = sa.text("""
    select min(tenant_id) from (
        (select tenant_id from tenants where tenant_id > :after order by tenant_id limit 1)
        union all
        (select tenant_id from reconciliations where tenant_id > :after order by tenant_id limit 1)
    ) as found
""")
_LIST_OLD_OUTPUTS = sa.text("""
    select cast(i.instance_id as text)
    from unnest(cast(:instance_ids as uuid[]), cast(:run_numbers as bigint[])) as listed (instance_id, run_number)
    join instances i on i.tenant_id = :tenant_id and i.instance_id = listed.instance_id
    left join outputs o on o.tenant_id = :tenant_id and o.instance_id = listed.instance_id and o.flow_kind = 'refresh'
    where coalesce(o.run_number, 0) < listed.run_number
""")


class Entry(NamedTuple):
    """An instance with the numbers by which other services see whether they lack a change."""

    instance_id: str
    revision: int
    update_time: datetime
    kind: str
    state: str
    project_id: str


async def next_tenant(connection: Connection, after: str) -> str | None:
    """Return the first tenant after the given one that has or had instances; use the infra login."""
    return (await connection.execute(_NEXT_TENANT, {"after": after})).scalar_one_or_none()


async def list_page(connection: Connection, tenant_id: str, after: str, limit: int) -> list[Entry]:
    """Return a page of instances, sorted by id, without components."""
    columns = instances.c
    statement = (
        sa.select(
            columns.instance_id,
            columns.revision,
            columns.update_time,
            columns.kind,
            columns.state,
            columns.project_id,
        )
        # No event is published about a component; the events of the instance that owns it contain it.
        .where(
            columns.tenant_id == tenant_id, columns.instance_id > after, columns.owner_instance_id.is_(None)
        )
        .order_by(columns.instance_id)
        .limit(limit)
    )
    return [Entry(*row) for row in await connection.execute(statement)]


async def list_old_outputs(
    connection: Connection, tenant_id: str, run_numbers: Mapping[str, int]
) -> list[str]:
    """Return those of the instances whose newest known output is older than the run number given for them."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": list(run_numbers),
        "run_numbers": list(run_numbers.values()),
    }
    return list((await connection.execute(_LIST_OLD_OUTPUTS, parameters)).scalars())
