"""Compare the flows around a flow at two moments."""

from __future__ import annotations

from dataclasses import dataclass

from lineage_service import conversion
from lineage_service.domain.differences import FlowDifference, find_differences
from lineage_service.domain.errors import flow_not_found
from lineage_service.domain.flows import Edge
from lineage_service.domain.keys import FlowKey
from lineage_service.store import history
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.graphs import GRAPH_LIMIT, list_around
from lineage_service.use_cases.views import Past, State, open_past
from optaic.common.v1.flow_pb2 import FlowRef
from optaic.lineage.v1 import lineage_service_pb2 as api
from optaic.rules.pages import LONG_DEFAULT_SIZE
from servicekit import off_loop, pages
from servicekit.database import Connection

_BYTES_OF_A_FLOW = 300  # about


@dataclass(frozen=True)
class _Side:
    """The graph of one of the two moments, as far as it is compared."""

    past: Past
    states: dict[int, State]
    edges: list[Edge]


async def diff_lineage(
    deps: Dependencies, tenant_id: str, request: api.DiffLineageRequest
) -> api.DiffLineageResponse:
    """Return a page of the flows around a flow that differ between two moments, nearest first.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        OutOfRangeError: HISTORY_NOT_KEPT or REVISION_UNKNOWN.
        InvalidArgumentError: The token belongs to another list.
    """
    key = conversion.flow_key(request.flow)
    moments = (request.before.SerializeToString(), request.after.SerializeToString())
    depths = (request.upstream_depth, request.downstream_depth)
    tokens = pages.PageTokens(deps.signer, tenant_id, "DiffLineage", key, *moments, *depths)
    position = tokens.decode(request.page_token)
    start = 0
    before, after = request.before, request.after
    if position:  # all pages compare the same two revisions
        start = int(position["place"])
        before, after = (api.AsOf(revision=int(position[name])) for name in ("before", "after"))
    size = request.page_size or LONG_DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        if not after.WhichOneof("moment"):
            newest = (await history.find_revision(connection, tenant_id, 0)).newest
            after = api.AsOf(revision=newest)
        pasts = [
            await open_past(connection, tenant_id, each, name)
            for each, name in ((before, "before"), (after, "after"))
        ]
        order, sides, is_truncated = await _load(connection, tenant_id, key, pasts, depths)

    def answer() -> api.DiffLineageResponse:
        one, other = sides
        names = {
            flow_id: state.flow.instance_name for side in sides for flow_id, state in side.states.items()
        }
        ranked = sorted(order, key=lambda flow_id: (order[flow_id], names[flow_id], flow_id))
        found = find_differences(
            {flow_id: state.flow for flow_id, state in one.states.items()},
            one.edges,
            {flow_id: state.flow for flow_id, state in other.states.items()},
            other.edges,
            ranked,
        )
        refs = {
            flow_id: conversion.flow_ref(*state.flow.key)
            for side in sides
            for flow_id, state in side.states.items()
        }
        revisions = [side.past.moment.revision for side in sides]
        result = api.DiffLineageResponse(
            is_truncated=is_truncated, before_revision=revisions[0], after_revision=revisions[1]
        )
        left = pages.LONG_MOST_BYTES
        for difference in found[start : start + size]:
            message = _message(difference, one, other, refs, names)
            left -= message.ByteSize()
            if left < 0 and result.flows:
                break
            result.flows.append(message)
        place = start + len(result.flows)
        if len(found) > place:
            result.next_page_token = tokens.encode(
                {"place": place, "before": revisions[0], "after": revisions[1]}
            )
        return result

    size_of_all = sum(len(side.states) for side in sides) * _BYTES_OF_A_FLOW
    return await off_loop.run_if_large(size_of_all, answer)


async def _load(
    connection: Connection, tenant_id: str, key: FlowKey, pasts: list[Past], depths: tuple[int, int]
) -> tuple[dict[int, int], list[_Side], bool]:
    """Return the distances of the flows that are compared, what they were at each moment, and whether there are more."""
    around: list[dict[int, int]] = []
    for past in pasts:
        own = await history.find_flow(connection, tenant_id, past.moment.revision, key)
        found = await list_around(past, own, *depths) if own is not None else []
        around.append({flow_id: distance for distance, flow_id in found})
    if not any(around):
        raise flow_not_found(key)

    def nearest() -> list[tuple[int, int]]:
        return sorted(
            (min(each[flow_id] for each in around if flow_id in each), flow_id)
            for flow_id in around[0].keys() | around[1].keys()
        )

    ranked = await off_loop.run_if_large(sum(map(len, around)) * _BYTES_OF_A_FLOW, nearest)
    order = {flow_id: distance for distance, flow_id in ranked[:GRAPH_LIMIT]}
    for past, members in zip(pasts, around, strict=True):
        # What only names settings stands one step outside of what versions flow through.
        for pair in await past.list_schema_neighbours([flow_id for flow_id in order if flow_id in members]):
            for flow_id in pair:
                members.setdefault(flow_id, ranked[-1][0] + 1)
    for flow_id in sorted((around[0].keys() | around[1].keys()) - {flow_id for _, flow_id in ranked}):
        if len(order) < GRAPH_LIMIT:
            order[flow_id] = ranked[-1][0] + 1
    sides = []
    for past, members in zip(pasts, around, strict=True):
        ids = [flow_id for flow_id in order if flow_id in members]
        states = {state.flow.flow_id: state for state in await past.list_states(ids)} if ids else {}
        sides.append(_Side(past, states, await past.list_edges_among(ids) if ids else []))
    return order, sides, len(around[0].keys() | around[1].keys()) > len(order)


def _message(
    difference: FlowDifference, before: _Side, after: _Side, refs: dict[int, FlowRef], names: dict[int, str]
) -> api.FlowDifference:
    """Convert what differs in a flow to a protobuf message."""
    flow = difference.flow
    message = api.FlowDifference(
        flow=refs[flow.flow_id], instance_name=flow.instance_name, change=api.LINEAGE_CHANGE_CHANGED
    )
    if difference.before is None:
        message.change = api.LINEAGE_CHANGE_ADDED
    else:
        causes = before.states[flow.flow_id].causes
        message.before.CopyFrom(conversion.state_message(difference.before, causes))
        message.before_fingerprint = difference.before.fingerprint
    if difference.after is None:
        message.change = api.LINEAGE_CHANGE_REMOVED
    else:
        causes = after.states[flow.flow_id].causes
        message.after.CopyFrom(conversion.state_message(difference.after, causes))
        message.after_fingerprint = difference.after.fingerprint
    for each in difference.edges:
        edge = message.edges.add(
            upstream=refs[each.edge.upstream_id], upstream_name=names[each.edge.upstream_id]
        )
        if each.before is not None:
            edge.before.CopyFrom(conversion.edge_message(each.before, refs))
        if each.after is not None:
            edge.after.CopyFrom(conversion.edge_message(each.after, refs))
    return message
