"""The reads of the lineage graph: each answers from one database snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lineage_service.domain.causes import Cause, Explanation, explain, state_causes
from lineage_service.domain.errors import flow_not_found
from lineage_service.domain.flows import Edge, Flow, FlowKey
from lineage_service.domain.order import adjacency, distances, execution_levels
from lineage_service.store import reads
from lineage_service.use_cases.dependencies import Dependencies
from optaic.rules.pages import LONG_DEFAULT_SIZE
from servicekit import pages
from servicekit.database import Connection

_GRAPH_LIMIT = 10_000


@dataclass(frozen=True)
class State:
    """A flow with the causes of its staleness."""

    flow: Flow
    causes: list[Cause]


@dataclass(frozen=True)
class Neighbourhood:
    """The flows around one flow, nearest first, and the edges between them."""

    states: list[State]
    edges: list[Edge]
    keys: dict[int, FlowKey]
    is_truncated: bool


async def get_flow(connection: Connection, tenant_id: str, key: FlowKey) -> Flow:
    """Return a flow.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    flow = await reads.get_flow(connection, tenant_id, key)
    if flow is None:
        raise flow_not_found(key)
    return flow


async def list_states(connection: Connection, tenant_id: str, flow_ids: Sequence[int]) -> list[State]:
    """Return the states of flows, in the order of the ids."""
    graph = await reads.load_direct_graph(connection, tenant_id, flow_ids)
    found = [graph.flows[flow_id] for flow_id in flow_ids]
    return [State(flow, state_causes(graph, flow)) for flow in found]


async def get_flow_state(deps: Dependencies, tenant_id: str, key: FlowKey) -> State:
    """Return a flow's state.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    async with deps.database.read(tenant_id) as connection:
        flow = await get_flow(connection, tenant_id, key)
        return (await list_states(connection, tenant_id, [flow.flow_id]))[0]


async def _nearest_first(
    connection: Connection, tenant_id: str, flow_id: int, max_depth: int, *, is_upstream: bool
) -> list[tuple[int, int]]:
    """Return (distance, flow id) of all upstream flows, or of all downstream flows, nearest first."""
    pairs = await reads.list_closure(connection, tenant_id, [flow_id], is_upstream=is_upstream)
    neighbours = adjacency((down, up) for up, down in pairs) if is_upstream else adjacency(pairs)
    return sorted((depth, found) for found, depth in distances(flow_id, neighbours, max_depth).items())


async def list_neighbours(
    deps: Dependencies,
    tenant_id: str,
    key: FlowKey,
    *,
    is_upstream: bool,
    max_depth: int,
    page_size: int,
    page_token: str,
) -> tuple[list[State], str]:
    """Return one page of the transitive upstreams or downstreams, nearest first, and the next page's token.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        InvalidArgumentError: The token belongs to another list.
    """
    method = "ListUpstreams" if is_upstream else "ListDownstreams"
    tokens = pages.PageTokens(deps.signer, tenant_id, method, key, max_depth)
    position = tokens.decode(page_token) if page_token else {"depth": 0, "flow": 0}
    after = (int(position["depth"]), int(position["flow"]))
    size = page_size or LONG_DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        flow = await get_flow(connection, tenant_id, key)
        order = await _nearest_first(connection, tenant_id, flow.flow_id, max_depth, is_upstream=is_upstream)
        rest = [place for place in order if place > after]
        page = rest[:size]
        states = await list_states(connection, tenant_id, [flow_id for _, flow_id in page])
    if len(rest) <= size:
        return states, ""
    depth, flow_id = page[-1]
    return states, tokens.encode({"depth": depth, "flow": flow_id})


async def get_lineage_graph(
    deps: Dependencies, tenant_id: str, key: FlowKey, upstream_depth: int, downstream_depth: int
) -> Neighbourhood:
    """Return the flows and edges around a flow, up to the given depths.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    async with deps.database.read(tenant_id) as connection:
        flow = await get_flow(connection, tenant_id, key)
        above = await _nearest_first(connection, tenant_id, flow.flow_id, upstream_depth, is_upstream=True)
        below = await _nearest_first(connection, tenant_id, flow.flow_id, downstream_depth, is_upstream=False)
        order = [flow.flow_id, *(flow_id for _, flow_id in sorted(above + below))]
        ids = order[:_GRAPH_LIMIT]
        states = await list_states(connection, tenant_id, ids)
        edges = await reads.list_edges_among(connection, tenant_id, ids)
    keys = {state.flow.flow_id: state.flow.key for state in states}
    return Neighbourhood(states, edges, keys, len(order) > len(ids))


async def get_execution_order(
    deps: Dependencies, tenant_id: str, keys: Sequence[FlowKey]
) -> list[list[FlowKey]]:
    """Return the flows level by level, each after all of its upstreams.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    async with deps.database.read(tenant_id) as connection:
        ids = await reads.find_ids(connection, tenant_id, keys)
        for key in keys:
            if key not in ids:
                raise flow_not_found(key)
        pairs = await reads.list_closure(connection, tenant_id, list(ids.values()), is_upstream=True)
    keys_by_id = {flow_id: key for key, flow_id in ids.items()}
    return [[keys_by_id[flow_id] for flow_id in level] for level in execution_levels(keys_by_id, pairs)]


async def explain_staleness(
    deps: Dependencies, tenant_id: str, key: FlowKey
) -> tuple[State, list[Explanation]]:
    """Return a flow's state and every root cause through every affected direct upstream.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    async with deps.database.read(tenant_id) as connection:
        found = await get_flow(connection, tenant_id, key)
        graph = await reads.load_causes_graph(connection, tenant_id, [found.flow_id])
    flow = graph.flows[found.flow_id]
    return State(flow, state_causes(graph, flow)), explain(graph, flow)
