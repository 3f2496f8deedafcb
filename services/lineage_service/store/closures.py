"""The queries that walk from flows to all flows above or below them; they change nothing and take no lock."""

from __future__ import annotations

from collections.abc import Collection

from lineage_service.store.reads import in_slices, limited
from servicekit import off_loop
from servicekit.database import Connection

_BYTES_OF_A_FLOW = 50  # about, with its neighbours

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


async def list_neighbours(
    connection: Connection,
    tenant_id: str,
    flow_ids: Collection[int],
    *,
    is_upstream: bool,
    most: int | None = None,
) -> dict[int, list[int]]:
    """Return the flows and all above them, or all below them, each with the next ones there: the `most` nearest, nearest first."""
    statement = _LIST_ABOVE if is_upstream else _LIST_BELOW
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids)}
    rows = in_slices(connection, statement, parameters, len(flow_ids), most)
    return {row[0]: row[1] async for row in rows}


async def list_closure(
    connection: Connection, tenant_id: str, flow_ids: Collection[int], *, is_upstream: bool
) -> list[tuple[int, int]]:
    """Return (upstream, downstream) pairs for all edges above the flows, or for all edges below them."""
    found = await list_neighbours(connection, tenant_id, flow_ids, is_upstream=is_upstream)

    def pairs() -> list[tuple[int, int]]:
        if is_upstream:
            return [(other, flow_id) for flow_id, others in found.items() for other in others]
        return [(flow_id, other) for flow_id, others in found.items() for other in others]

    return await off_loop.run_if_large(len(found) * _BYTES_OF_A_FLOW, pairs)
