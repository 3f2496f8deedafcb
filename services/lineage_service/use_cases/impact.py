"""Preview what would become stale if the output of some flows were no longer right."""

from __future__ import annotations

from lineage_service import conversion
from lineage_service.domain.errors import flow_not_found
from lineage_service.domain.flows import Flow
from lineage_service.domain.order import adjacency, distances
from lineage_service.store import impact, reads
from lineage_service.use_cases.dependencies import Dependencies
from optaic.common.v1.flow_pb2 import FlowKind
from optaic.lineage.v1.lineage_service_pb2 import ImpactedFlow, PreviewImpactRequest, PreviewImpactResponse
from optaic.rules.pages import LONG_DEFAULT_SIZE
from servicekit import off_loop, pages
from servicekit.context import RequestContext
from servicekit.enums import enum_number

_BYTES_OF_A_FLOW, _BYTES_OF_A_PAIR = 100, 16  # about


async def preview_impact(
    deps: Dependencies, context: RequestContext, request: PreviewImpactRequest
) -> PreviewImpactResponse:
    """Return a page of the flows that would become stale, nearest first, and how many there are of each kind.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        InvalidArgumentError: The token belongs to another list.
    """
    tenant_id = context.tenant_id
    keys = [conversion.flow_key(flow) for flow in request.flows]
    tokens = pages.PageTokens(deps.signer, tenant_id, "PreviewImpact", sorted(keys))
    position = tokens.decode(request.page_token) or {"depth": -1, "flow": 0}
    after = (int(position["depth"]), int(position["flow"]))
    size = request.page_size or LONG_DEFAULT_SIZE
    readable = context.scopes.projects if context.scopes and context.is_confined else None
    async with deps.database.read(tenant_id) as connection:
        ids = await reads.find_ids(connection, tenant_id, keys)
        for key in keys:
            if key not in ids:
                raise flow_not_found(key)
        pairs = await impact.list_reached(connection, tenant_id, ids.values())

        def order() -> list[tuple[int, int]]:
            reached = {flow_id for flow_id, _ in pairs}
            starts = reached.intersection(ids.values())
            below = adjacency((flow_id, found) for flow_id, found in pairs if found is not None)
            depths = {**dict.fromkeys(starts, 0), **distances(starts, below)}
            return sorted((depth, flow_id) for flow_id, depth in depths.items())

        places = await off_loop.run_if_large(len(pairs) * _BYTES_OF_A_PAIR, order)
        rest = [place for place in places if place > after]
        page = rest[:size]
        flows = {
            flow.flow_id: flow
            for flow in await reads.list_flows(connection, tenant_id, [flow_id for _, flow_id in page])
        }
        counts = await impact.count_kinds(connection, tenant_id, [flow_id for _, flow_id in places], readable)

    def answer() -> PreviewImpactResponse:
        result = PreviewImpactResponse(total=len(places))
        for depth, flow_id in page:
            result.flows.append(_impacted(flows[flow_id], depth))
        for each in counts:
            if each.is_readable:
                result.counts.add(
                    instance_kind=each.instance_kind,
                    flow_kind=enum_number(FlowKind, each.flow_kind),
                    count=each.flows,
                )
            else:
                result.hidden_count += each.flows
        if len(rest) > size:
            depth, flow_id = page[-1]
            result.next_page_token = tokens.encode({"depth": depth, "flow": flow_id})
        return result

    return await off_loop.run_if_large(len(page) * _BYTES_OF_A_FLOW, answer)


def _impacted(flow: Flow, distance: int) -> ImpactedFlow:
    """Convert a flow that would become stale to a protobuf message."""
    is_ended = flow.run_number <= flow.ended_run_number
    _, _, status = conversion.dimensions(is_ended, flow.outcome, flow.is_fresh)
    return ImpactedFlow(
        flow=conversion.flow_ref(*flow.key),
        instance_name=flow.instance_name,
        instance_kind=flow.instance_kind,  # type: ignore[arg-type]  # stored unchanged
        status=status,
        distance=distance,
    )
