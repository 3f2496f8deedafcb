"""Answer what clients read: states, graphs and explanations, each from one database snapshot."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from lineage_service import conversion
from lineage_service.domain.causes import Explanation, explain, state_causes
from lineage_service.domain.errors import flow_not_found
from lineage_service.domain.flows import Flow
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.order import execution_levels
from lineage_service.store import closures, reads
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.graphs import GRAPH_LIMIT, load_surroundings
from lineage_service.use_cases.views import Past, Present, State, open_past
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
from servicekit.times import set_time

_BYTES_OF_A_FLOW = 300  # about


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


async def load_state(connection: Connection, tenant_id: str, key: FlowKey) -> State:
    """Return the state of a flow.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    flow = await get_flow(connection, tenant_id, key)
    return (await Present(connection, tenant_id).list_states([flow.flow_id]))[0]


async def load_explanations(
    connection: Connection, tenant_id: str, key: FlowKey
) -> tuple[State, Iterator[Explanation]]:
    """Return a flow's state and every root cause through every affected direct upstream; they are found when they are taken.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    found = await get_flow(connection, tenant_id, key)
    graph = await reads.load_causes_graph(connection, tenant_id, [found.flow_id])
    flow = graph.flows[found.flow_id]

    return State(flow, state_causes(graph, flow)), explain(graph, flow)


def state_message(state: State) -> FlowState:
    """Convert a state to a protobuf message."""
    return conversion.state_message(state.flow, state.causes)


async def get_flow_state(deps: Dependencies, tenant_id: str, request: GetFlowStateRequest) -> FlowState:
    """Return a flow's state, as it is or as of an earlier revision.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        OutOfRangeError: HISTORY_NOT_KEPT or REVISION_UNKNOWN.
    """
    key = conversion.flow_key(request.flow)
    async with deps.database.read(tenant_id) as connection:
        if not request.HasField("as_of"):
            return state_message(await load_state(connection, tenant_id, key))
        past = await open_past(connection, tenant_id, request.as_of, "as_of")
        (state,) = await past.list_states([await past.find_flow(key)])
    message = state_message(state)
    message.as_of_revision = past.moment.revision
    if past.moment.time is not None:
        set_time(message.as_of_time, past.moment.time)
    return message


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
) -> tuple[Sequence[FlowState], str]:
    key, max_depth = conversion.flow_key(request.flow), request.max_depth
    method = "ListUpstreams" if is_upstream else "ListDownstreams"
    tokens = pages.PageTokens(deps.signer, tenant_id, method, key, max_depth)
    position = tokens.decode(request.page_token) or {"depth": 0, "flow": 0}
    after = (int(position["depth"]), int(position["flow"]))
    told = int(position.get("told", 0))  # a token of an earlier release does not say it
    size = request.page_size or LONG_DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        flow = await get_flow(connection, tenant_id, key)
        view = Present(connection, tenant_id)
        enough = told + size + 1
        order = await view.list_nearest(flow.flow_id, enough, max_depth, is_upstream=is_upstream)
        rest = [place for place in order if place > after]
        while (
            len(order) >= enough and len(rest) <= size
        ):  # flows of earlier pages have gone, or were not counted
            enough *= 2
            order = await view.list_nearest(flow.flow_id, enough, max_depth, is_upstream=is_upstream)
            rest = [place for place in order if place > after]
        states = await view.list_states([flow_id for _, flow_id in rest[:size]])

    def page() -> Sequence[FlowState]:
        return pages.fit(list(map(state_message, states)), size, FlowState.ByteSize, pages.LONG_MOST_BYTES)

    messages = await off_loop.run_if_large(len(states) * _BYTES_OF_A_FLOW, page)
    if len(rest) == len(messages):
        return messages, ""
    depth, flow_id = rest[len(messages) - 1]
    return messages, tokens.encode({"depth": depth, "flow": flow_id, "told": told + len(messages)})


async def get_lineage_graph(
    deps: Dependencies, tenant_id: str, request: GetLineageGraphRequest
) -> GetLineageGraphResponse:
    """Return the flows and edges around a flow, nearest first, as they are or as of an earlier revision.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        OutOfRangeError: HISTORY_NOT_KEPT or REVISION_UNKNOWN.
    """
    key = conversion.flow_key(request.flow)
    async with deps.database.read(tenant_id) as connection:
        view: Present | Past = Present(connection, tenant_id)
        if request.HasField("as_of"):
            view = await open_past(connection, tenant_id, request.as_of, "as_of")
        found = await load_surroundings(view, key, request.upstream_depth, request.downstream_depth)

    def answer() -> GetLineageGraphResponse:
        states, edges = found.states, found.edges
        refs = {state.flow.flow_id: conversion.flow_ref(*state.flow.key) for state in states}
        result = GetLineageGraphResponse(is_truncated=found.is_truncated)
        if isinstance(view, Past):
            result.as_of_revision = view.moment.revision
            if view.moment.time is not None:
                set_time(result.as_of_time, view.moment.time)
        places = {state.flow.flow_id: place for place, state in enumerate(states)}
        sizes = [0] * len(states)  # of the edges between each flow and those before it
        inside = [max(places[edge.upstream_id], places[edge.downstream_id]) for edge in edges]
        messages = [conversion.edge_message(edge, refs) for edge in edges]
        for place, edge_message in zip(inside, messages, strict=True):
            sizes[place] += edge_message.ByteSize()
        left = pages.LONG_MOST_BYTES
        for state, size in zip(states, sizes, strict=True):  # one by one, so that other threads may run
            message = conversion.state_message(state.flow, state.causes)
            left -= message.ByteSize() + size
            if left < 0 and result.flows:
                result.is_truncated = True
                break
            result.flows.append(message)
        for place, edge_message in zip(inside, messages, strict=True):
            if place < len(result.flows):
                result.edges.append(edge_message)
        off_loop.free(states)
        off_loop.free(edges)
        off_loop.free(messages)
        return result

    return await off_loop.run_if_large(len(found.states) * _BYTES_OF_A_FLOW, answer)


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
        above = await closures.list_neighbours(connection, tenant_id, ids.values(), is_upstream=True)

    def answer() -> GetExecutionOrderResponse:
        refs = {ids[key]: ref for key, ref in zip(keys, request.flows, strict=True)}
        levels = execution_levels(refs, above)
        return GetExecutionOrderResponse(
            levels=[ExecutionLevel(flows=[refs[flow_id] for flow_id in level]) for level in levels]
        )

    return await off_loop.run_if_large(request.ByteSize() + len(above) * _BYTES_OF_A_FLOW, answer)


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

    def answer() -> ExplainStalenessResponse:
        result, size = ExplainStalenessResponse(flow_state=state_message(state)), 0
        for each in explanations:
            message = _explanation_message(each)
            size += message.ByteSize()
            if len(result.explanations) == GRAPH_LIMIT or size > pages.LONG_MOST_BYTES:
                result.is_truncated = True
                break
            result.explanations.append(message)
        return result

    # How many there are is not known before.
    return answer() if state.flow.is_fresh else await off_loop.run(answer)


def _explanation_message(explanation: Explanation) -> StalenessExplanation:
    message = StalenessExplanation(cause=conversion.cause_message(explanation.cause))
    if explanation.direct_upstream is not None:
        message.direct_upstream.CopyFrom(conversion.flow_ref(*explanation.direct_upstream.key))
    for flow in explanation.path:
        message.path.append(PathStep(flow=conversion.flow_ref(*flow.key), instance_name=flow.instance_name))
    return message
