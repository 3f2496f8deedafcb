"""The queries that find what would become stale; they change nothing and take no lock."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import sqlalchemy as sa

from servicekit.database import Connection

# A flow below one that is not fresh is not fresh either, so the search ends there.
_LIST_PAIRS = sa.text("""
    with recursive reached (flow_id) as (
        select f.flow_id from flows f
        where f.tenant_id = :tenant_id and f.flow_id = any(:flow_ids) and f.is_fresh
        union
        select f.flow_id from reached r
        join edges e on e.tenant_id = :tenant_id and e.upstream_id = r.flow_id and e.is_connected
        join flows f on f.tenant_id = :tenant_id and f.flow_id = e.downstream_id and f.is_fresh
    )
    select r.flow_id, f.flow_id from reached r
    left join edges e on e.tenant_id = :tenant_id and e.upstream_id = r.flow_id and e.is_connected
    left join flows f on f.tenant_id = :tenant_id and f.flow_id = e.downstream_id and f.is_fresh
""")
_COUNT = sa.text("""
    select i.kind, f.flow_kind,
           coalesce(cast(:is_confined as boolean) is false or l.project_id = any(cast(:projects as uuid[])), false),
           count(*)
    from flows f
    join instances i on i.tenant_id = :tenant_id and i.instance_id = f.instance_id
    left join locations l on l.tenant_id = :tenant_id and l.resource_id = f.instance_id
    where f.tenant_id = :tenant_id and f.flow_id = any(:flow_ids)
    group by 1, 2, 3 order by 1, 2, 3
""")


class KindCount(NamedTuple):
    """The number of flows of one kind, in projects that the caller may read, or in the others."""

    instance_kind: int
    flow_kind: str
    is_readable: bool
    flows: int


async def list_reached(
    connection: Connection, tenant_id: str, flow_ids: Iterable[int]
) -> list[tuple[int, int | None]]:
    """Return (flow, fresh dependant) pairs of the flows that are fresh and their fresh dependants; None: it has none."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids)}
    return [(row[0], row[1]) for row in await connection.execute(_LIST_PAIRS, parameters)]


async def count_kinds(
    connection: Connection, tenant_id: str, flow_ids: Collection[int], projects: Collection[str] | None
) -> list[KindCount]:
    """Count flows by kind and by whether they are in one of the projects that the caller may read; None means all."""
    parameters = {
        "tenant_id": tenant_id,
        "flow_ids": list(flow_ids),
        "is_confined": projects is not None,
        "projects": sorted(projects or ()),
    }
    return [KindCount(*row) for row in await connection.execute(_COUNT, parameters)]
