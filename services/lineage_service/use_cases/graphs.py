"""Load the graph around a flow, as it is or as it was."""

from __future__ import annotations

from dataclasses import dataclass

from lineage_service.domain.flows import Edge
from lineage_service.domain.keys import FlowKey
from lineage_service.use_cases.views import State, View

GRAPH_LIMIT = 10_000


@dataclass(frozen=True)
class Surroundings:
    """The flows around a flow, nearest first, and the edges among them."""

    states: list[State]
    edges: list[Edge]
    is_truncated: bool


async def list_around(
    view: View, flow_id: int, upstream_depth: int, downstream_depth: int
) -> list[tuple[int, int]]:
    """Return (distance, flow id) of a flow and of those above and below it, nearest first: all, or more than GRAPH_LIMIT."""
    above = await view.list_nearest(flow_id, GRAPH_LIMIT, upstream_depth, is_upstream=True)
    below = await view.list_nearest(flow_id, GRAPH_LIMIT, downstream_depth, is_upstream=False)
    return [(0, flow_id), *sorted(above + below)]


async def load_surroundings(
    view: View, key: FlowKey, upstream_depth: int, downstream_depth: int
) -> Surroundings:
    """Return the flows and edges around a flow, up to the given depths; 0 means no limit.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    own = await view.find_flow(key)
    order = [flow_id for _, flow_id in await list_around(view, own, upstream_depth, downstream_depth)]
    # What only names settings stands one step outside of what versions flow through.
    beside = await view.list_schema_neighbours(order[:GRAPH_LIMIT])
    order = list(dict.fromkeys([*order, *(flow_id for pair in beside for flow_id in pair)]))
    ids = order[:GRAPH_LIMIT]
    states = await view.list_states(ids)
    edges = await view.list_edges_among(ids)
    return Surroundings(states, edges, len(order) > len(ids))
