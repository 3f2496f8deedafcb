"""Why flows are not fresh, found for many of them at once, in the transaction that changed them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lineage_service.domain.causes import Cause, moved, not_fresh, state_causes
from lineage_service.domain.flows import Move
from lineage_service.store import propagation, reads
from servicekit.database import Connection


async def find_state_causes(
    connection: Connection, tenant_id: str, flow_ids: Collection[int]
) -> dict[int, list[Cause]]:
    """Return what the states of flows show."""
    graph = await reads.load_direct_graph(connection, tenant_id, flow_ids)
    return {flow_id: state_causes(graph, graph.flows[flow_id]) for flow_id in flow_ids}


async def find_spread_causes(
    connection: Connection, tenant_id: str, stale: set[int], moves: Sequence[Move]
) -> dict[int, list[Cause]]:
    """Return the same as `find_state_causes` of flows that a propagation has just reached.

    They were fresh before: only what moved, and what it reached too, can be their cause. There may be a hundred thousand.
    """
    if not stale:
        return {}
    behind = await propagation.list_behind(connection, tenant_id, moves) if moves else []
    readers = {each: stale.intersection(propagation.parse_ids(each.flow_ids)) for each in behind}
    below = await propagation.list_below(connection, tenant_id, stale.difference(*readers.values()))
    upstream_ids = {*below, *(each.upstream_id for each in behind)}
    upstreams = await reads.list_upstreams(connection, tenant_id, upstream_ids)
    found: dict[int, list[Cause]] = {}
    for each in sorted(behind, key=lambda each: upstreams[each.upstream_id].key):
        upstream = upstreams[each.upstream_id]
        causes = [moved(upstream, each.consumed_version, upstream.version)]
        for flow_id in readers[each]:
            # Flows with the same causes share one list: the messages tell it once.
            found[flow_id] = [*found[flow_id], *causes] if flow_id in found else causes
    for upstream_id, flow_ids in below.items():
        causes = [not_fresh(upstreams[upstream_id])]
        found.update(dict.fromkeys(propagation.parse_ids(flow_ids), causes))
    return found
