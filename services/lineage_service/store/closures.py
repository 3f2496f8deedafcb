"""The queries that walk from flows to all flows above or below them; they change nothing and take no lock."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from lineage_service.store.reads import in_slices, limited
from servicekit.database import Connection

# Each flow of the closure, with its neighbours. Each step is a lookup in an index, as in `propagation`.
# A flow is a row once, so circles end too. PostgreSQL finds the flows step by step, hence nearest first, and returns each as soon
# as it is found, so a limit ends the walk.
_LIST_ABOVE = limited("""
    with recursive closure (flow_id) as (
        select unnest(cast(:flow_ids as bigint[]))
        union
        select e.upstream_id from closure c cross join lateral (
            select e.upstream_id from edges e
            where e.tenant_id = :tenant_id and e.downstream_id = c.flow_id and e.is_connected offset 0
        ) e
    )
    select c.flow_id, array(
        select e.upstream_id from edges e
        where e.tenant_id = :tenant_id and e.downstream_id = c.flow_id and e.is_connected
    ) from closure c
""")
_LIST_BELOW = limited("""
    with recursive closure (flow_id) as (
        select unnest(cast(:flow_ids as bigint[]))
        union
        select e.downstream_id from closure c cross join lateral (
            select e.downstream_id from edges e
            where e.tenant_id = :tenant_id and e.upstream_id = c.flow_id and e.is_connected offset 0
        ) e
    )
    select c.flow_id, array(
        select e.downstream_id from edges e
        where e.tenant_id = :tenant_id and e.upstream_id = c.flow_id and e.is_connected
    ) from closure c
""")


async def list_closure(
    connection: Connection, tenant_id: str, flow_ids: Collection[int], *, is_upstream: bool
) -> list[tuple[int, int]]:
    """Return (upstream, downstream) pairs for all edges above the flows, or for all edges below them."""
    statement = _statement(is_upstream=is_upstream)
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids)}
    rows = in_slices(connection, statement, parameters, len(flow_ids))
    if is_upstream:
        return [(other, flow_id) async for flow_id, others in rows for other in others]
    return [(flow_id, other) async for flow_id, others in rows for other in others]


async def list_nearest(
    connection: Connection, tenant_id: str, flow_id: int, most: int, *, is_upstream: bool
) -> dict[int, list[int]]:
    """Return the `most` flows that are nearest to a flow, itself first, with the next ones above each, or below each."""
    statement = _statement(is_upstream=is_upstream)
    parameters = {"tenant_id": tenant_id, "flow_ids": [flow_id]}
    return {row[0]: row[1] async for row in in_slices(connection, statement, parameters, most=most)}


def _statement(*, is_upstream: bool) -> sa.TextClause:
    return _LIST_ABOVE if is_upstream else _LIST_BELOW
