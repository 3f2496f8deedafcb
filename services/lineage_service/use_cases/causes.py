"""The causes of staleness, found for many flows at once, in the transaction that changed the flows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet

from lineage_service.domain.causes import MAX_CAUSES, Cause, Causes, moved, not_fresh, state_causes
from lineage_service.domain.flows import Change, Move
from lineage_service.store import propagation, reads
from servicekit.database import Connection


async def find_state_causes(
    connection: Connection, tenant_id: str, flow_ids: Collection[int]
) -> dict[int, list[Cause]]:
    """Return, for each flow, why it is not fresh, derived from its own state and its direct upstreams."""
    graph = await reads.load_direct_graph(connection, tenant_id, flow_ids)
    return {flow_id: state_causes(graph, graph.flows[flow_id]) for flow_id in flow_ids}


async def find_spread_causes(
    connection: Connection,
    tenant_id: str,
    states: Mapping[int, Change],
    touched: AbstractSet[int],
    moves: Sequence[Move],
) -> Causes:
    """Return the causes of the flows that a propagation made stale, equal to those of `find_state_causes`.

    `states` holds every flow that the propagation wrote. The stale ones were fresh before, so each has one of two
    causes: an upstream moved to a new version, or an upstream became stale in the same propagation. This reads only
    those upstreams, because a propagation can reach a hundred thousand flows.
    """
    stale = {flow_id for flow_id, state in states.items() if not state.is_fresh}
    spread = stale - touched
    if not spread:
        return Causes()
    behind = await propagation.list_behind(connection, tenant_id, moves) if moves else []
    readers = {each: spread.intersection(propagation.parse_ids(each.flow_ids)) for each in behind}
    rest = spread.difference(*readers.values())
    below = await propagation.list_not_fresh(connection, tenant_id, rest, stale) if rest else {}
    known = {upstream_id for upstream_id in below.values() if states[upstream_id].is_defined}
    names = await propagation.list_names(connection, tenant_id, known) if known else {}
    others = {each.upstream_id for each in behind}.union(set(below.values()) - known)
    upstreams = await reads.list_upstreams(connection, tenant_id, others) if others else {}
    lists: dict[int, list[Cause]] = {}
    for each in sorted(behind, key=lambda each: upstreams[each.upstream_id].key):
        upstream = upstreams[each.upstream_id]
        causes = [moved(upstream, each.compared_version, upstream.version)]
        for flow_id in readers[each]:
            lists[flow_id] = [*lists[flow_id], *causes][:MAX_CAUSES] if flow_id in lists else causes
    for flow_id in [flow_id for flow_id, upstream_id in below.items() if upstream_id not in known]:
        lists[flow_id] = [not_fresh(upstreams[below.pop(flow_id)])]
    return Causes(lists, below, states, names)
