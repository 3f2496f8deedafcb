"""Answer what clients read: states, graphs and explanations, each from one database snapshot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lineage_service import conversion
from lineage_service.domain.causes import Cause, Explanation, explain, state_causes
from lineage_service.domain.errors import flow_not_found
from lineage_service.domain.flows import Flow
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.order import adjacency, distances, execution_levels
from lineage_service.store import reads
from lineage_service.use_cases.dependencies import Dependencies
from optaic.lineage.v1.lineage_pb2 import FlowState, PathStep, StalenessExplanation
from optaic.lineage.v1.lineage_service_pb2 import (
    ExecutionLevel,
    ExplainStalenessRequest,
    ExplainStalenessResponse,
    GetExecutionOrderRequest,
    GetExecutionOrderResponse,
    GetFlowStateRequest,
    GetLineageGraphRequest,
    GetLineageGraphResponse,
    ListDownstreamsRequest,
    ListDownstreamsResponse,
    ListUpstreamsRequest,
    ListUpstreamsResponse,
)
from optaic.rules.pages import LONG_DEFAULT_SIZE
from servicekit import locations, off_loop, pages
from servicekit.database import Connection

_GRAPH_LIMIT = 10_000
_BYTES_OF_A_FLOW, _BYTES_OF_A_PAIR = 300, 16  # about


@dataclass(frozen=True)
class State:
    """A flow with the causes of its staleness."""

    flow: Flow
    causes: list[Cause]


async def locate(deps: Dependencies, tenant_id: str, ids: Collection[str]) -> Mapping[str, str]:
    """Return the project of each of the instances that are known."""
    async with deps.database.read(tenant_id) as connection:
        return await locations.locate(connection, tenant_id, ids)


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

    def states() -> list[State]:
        found = [graph.flows[flow_id] for flow_id in flow_ids]
        return [State(flow, state_causes(graph, flow)) for flow in found]

    return await off_loop.run_if_large(len(graph.flows) * _BYTES_OF_A_FLOW, states)


async def load_state(connection: Connection, tenant_id: str, key: FlowKey) -> State:
    """Return the state of a flow.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    flow = await get_flow(connection, tenant_id, key)
    return (await list_states(connection, tenant_id, [flow.flow_id]))[0]


async def load_explanations(
    connection: Connection, tenant_id: str, key: FlowKey
) -> tuple[State, list[Explanation]]:
    """Return a flow's state and every root cause through every affected direct upstream.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    found = await get_flow(connection, tenant_id, key)
    graph = await reads.load_causes_graph(connection, tenant_id, [found.flow_id])
    flow = graph.flows[found.flow_id]

    def explained() -> tuple[State, list[Explanation]]:
        return State(flow, state_causes(graph, flow)), explain(graph, flow)

    return await off_loop.run_if_large(len(graph.flows) * _BYTES_OF_A_FLOW, explained)


def state_message(state: State) -> FlowState:
    """Convert a state to a protobuf message."""
    return conversion.state_message(state.flow, state.causes)


async def get_flow_state(deps: Dependencies, tenant_id: str, request: GetFlowStateRequest) -> FlowState:
    """Return a flow's state.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    async with deps.database.read(tenant_id) as connection:
        return state_message(await load_state(connection, tenant_id, conversion.flow_key(request.flow)))


async def _nearest_first(
    connection: Connection, tenant_id: str, flow_id: int, max_depth: int, *, is_upstream: bool
) -> list[tuple[int, int]]:
    """Return (distance, flow id) of all upstream flows, or of all downstream flows, nearest first."""
    pairs = await reads.list_closure(connection, tenant_id, [flow_id], is_upstream=is_upstream)

    def order() -> list[tuple[int, int]]:
        neighbours = adjacency((down, up) for up, down in pairs) if is_upstream else adjacency(pairs)
        return sorted((depth, found) for found, depth in distances([flow_id], neighbours, max_depth).items())

    return await off_loop.run_if_large(len(pairs) * _BYTES_OF_A_PAIR, order)


async def list_upstreams(
    deps: Dependencies, tenant_id: str, request: ListUpstreamsRequest
) -> ListUpstreamsResponse:
    """Return a page of the transitive upstreams, nearest first.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        InvalidArgumentError: The token belongs to another list.
    """
    flows, token = await _list_neighbours(deps, tenant_id, request, is_upstream=True)
    return ListUpstreamsResponse(flows=flows, next_page_token=token)


async def list_downstreams(
    deps: Dependencies, tenant_id: str, request: ListDownstreamsRequest
) -> ListDownstreamsResponse:
    """Return a page of the transitive downstreams, nearest first; raises as `list_upstreams`."""
    flows, token = await _list_neighbours(deps, tenant_id, request, is_upstream=False)
    return ListDownstreamsResponse(flows=flows, next_page_token=token)


async def _list_neighbours(
    deps: Dependencies,
    tenant_id: str,
    request: ListUpstreamsRequest | ListDownstreamsRequest,
    *,
    is_upstream: bool,
) -> tuple[list[FlowState], str]:
    key, max_depth = conversion.flow_key(request.flow), request.max_depth
    method = "ListUpstreams" if is_upstream else "ListDownstreams"
    tokens = pages.PageTokens(deps.signer, tenant_id, method, key, max_depth)
    position = tokens.decode(request.page_token) or {"depth": 0, "flow": 0}
    after = (int(position["depth"]), int(position["flow"]))
    size = request.page_size or LONG_DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        flow = await get_flow(connection, tenant_id, key)
        order = await _nearest_first(connection, tenant_id, flow.flow_id, max_depth, is_upstream=is_upstream)
        rest = [place for place in order if place > after]
        page = rest[:size]
        states = await list_states(connection, tenant_id, [flow_id for _, flow_id in page])
    messages = await off_loop.run_if_large(
        len(states) * _BYTES_OF_A_FLOW, lambda: list(map(state_message, states))
    )
    if len(rest) <= size:
        return messages, ""
    depth, flow_id = page[-1]
    return messages, tokens.encode({"depth": depth, "flow": flow_id})


async def get_lineage_graph(
    deps: Dependencies, tenant_id: str, request: GetLineageGraphRequest
) -> GetLineageGraphResponse:
    """Return the flows and edges around a flow, up to the given depths, nearest first.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    key = conversion.flow_key(request.flow)
    async with deps.database.read(tenant_id) as connection:
        own = (await get_flow(connection, tenant_id, key)).flow_id
        above = await _nearest_first(connection, tenant_id, own, request.upstream_depth, is_upstream=True)
        below = await _nearest_first(connection, tenant_id, own, request.downstream_depth, is_upstream=False)
        order = [own, *(flow_id for _, flow_id in sorted(above + below))]
        del above, below  # now, and not with everything else at the end
        # What only names settings stands one step outside of what versions flow through.
        beside = await reads.list_schema_neighbours(connection, tenant_id, order[:_GRAPH_LIMIT])
        order = list(dict.fromkeys([*order, *(flow_id for pair in beside for flow_id in pair)]))
        ids = order[:_GRAPH_LIMIT]
        states = await list_states(connection, tenant_id, ids)
        edges = await reads.list_edges_among(connection, tenant_id, ids)

    def answer() -> GetLineageGraphResponse:
        refs = {state.flow.flow_id: conversion.flow_ref(*state.flow.key) for state in states}
        result = GetLineageGraphResponse(is_truncated=len(order) > len(ids))
        for state in states:  # one by one: a long list is copied without letting other threads run
            result.flows.append(state_message(state))
        for edge in edges:
            result.edges.add(
                upstream=refs[edge.upstream_id],
                downstream=refs[edge.downstream_id],
                role=edge.role,
                kind=edge.kind,
                consumed_version=edge.consumed_version,
            )
        off_loop.free(states)
        off_loop.free(edges)
        return result

    return await off_loop.run_if_large(len(states) * _BYTES_OF_A_FLOW, answer)


async def get_execution_order(
    deps: Dependencies, tenant_id: str, request: GetExecutionOrderRequest
) -> GetExecutionOrderResponse:
    """Return the flows level by level, each after all of its upstreams.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    keys = [conversion.flow_key(flow) for flow in request.flows]
    async with deps.database.read(tenant_id) as connection:
        ids = await reads.find_ids(connection, tenant_id, keys)
        for key in keys:
            if key not in ids:
                raise flow_not_found(key)
        pairs = await reads.list_closure(connection, tenant_id, list(ids.values()), is_upstream=True)

    def answer() -> GetExecutionOrderResponse:
        refs = {flow_id: conversion.flow_ref(*key) for key, flow_id in ids.items()}
        levels = execution_levels(refs, pairs)
        return GetExecutionOrderResponse(
            levels=[ExecutionLevel(flows=[refs[flow_id] for flow_id in level]) for level in levels]
        )

    return await off_loop.run_if_large(request.ByteSize() + len(pairs) * _BYTES_OF_A_PAIR, answer)


async def explain_staleness(
    deps: Dependencies, tenant_id: str, request: ExplainStalenessRequest
) -> ExplainStalenessResponse:
    """Return a flow's state and every root cause through every affected direct upstream.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    key = conversion.flow_key(request.flow)
    async with deps.database.read(tenant_id) as connection:
        state, explanations = await load_explanations(connection, tenant_id, key)
    return ExplainStalenessResponse(
        flow_state=state_message(state),
        explanations=[
            StalenessExplanation(
                cause=conversion.cause_message(each.cause),
                direct_upstream=conversion.flow_ref(*each.direct_upstream.key)
                if each.direct_upstream
                else None,
                path=[
                    PathStep(flow=conversion.flow_ref(*flow.key), instance_name=flow.instance_name)
                    for flow in each.path
                ],
            )
            for each in explanations
        ],
    )
