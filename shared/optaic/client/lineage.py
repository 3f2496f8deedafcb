"""Read what depends on what, and why something is out of date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optaic.client.connection import Connection
from optaic.client.definitions import all_pages
from optaic.client.moments import MomentLike, moment
from optaic.client.references import FlowLike, flow_of
from optaic.common.v1.flow_pb2 import FlowRef
from optaic.lineage.v1 import lineage_pb2
from optaic.lineage.v1 import lineage_service_pb2 as api
from optaic.lineage.v1.lineage_service_pb2_grpc import LineageServiceStub
from optaic.rules.pages import LARGEST_SIZE, LONG_DEFAULT_SIZE, LONG_LARGEST_SIZE


class Lineage:
    """The flow-to-flow graph. A flow is given as FlowRef, or as instance (or id) and, where needed, `flow_kind`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _call(self, method: str, request: Any) -> Any:
        return await self._connection.call("lineage", LineageServiceStub, method, request)

    async def state(
        self, flow: FlowLike, flow_kind: str | int | None = None, *, as_of: MomentLike | None = None
    ) -> lineage_pb2.FlowState:
        """Return everything known about a flow, as it is or `as_of` a lineage revision, a time, or what a run saw."""
        request = api.GetFlowStateRequest(flow=await flow_of(self._connection, flow, flow_kind))
        if as_of is not None:
            request.as_of.CopyFrom(moment(as_of))
        answer: lineage_pb2.FlowState = await self._call("GetFlowState", request)
        return answer

    async def check(
        self, flow: FlowLike, flow_kind: str | int | None = None
    ) -> api.CheckUpstreamFreshnessResponse:
        """Return whether a run would be admitted now (`all_ready`), what is `blocking`, and what it would read."""
        request = api.CheckUpstreamFreshnessRequest(flow=await flow_of(self._connection, flow, flow_kind))
        answer: api.CheckUpstreamFreshnessResponse = await self._call("CheckUpstreamFreshness", request)
        return answer

    async def explain(
        self, flow: FlowLike, flow_kind: str | int | None = None
    ) -> api.ExplainStalenessResponse:
        """Return why a flow is not fresh: every cause with one shortest path through each affected upstream."""
        request = api.ExplainStalenessRequest(flow=await flow_of(self._connection, flow, flow_kind))
        answer: api.ExplainStalenessResponse = await self._call("ExplainStaleness", request)
        return answer

    async def upstreams(
        self, flow: FlowLike, flow_kind: str | int | None = None, *, max_depth: int = 0
    ) -> list[lineage_pb2.FlowState]:
        """Return the transitive upstreams, nearest first."""
        reference = await flow_of(self._connection, flow, flow_kind)
        request = api.ListUpstreamsRequest(flow=reference, max_depth=max_depth, page_size=LONG_DEFAULT_SIZE)

        async def page(request: Any) -> Any:
            return await self._call("ListUpstreams", request)

        return await all_pages(page, request, "flows")

    async def downstreams(
        self, flow: FlowLike, flow_kind: str | int | None = None, *, max_depth: int = 0
    ) -> list[lineage_pb2.FlowState]:
        """Return the transitive downstreams, nearest first."""
        reference = await flow_of(self._connection, flow, flow_kind)
        request = api.ListDownstreamsRequest(flow=reference, max_depth=max_depth, page_size=LONG_DEFAULT_SIZE)

        async def page(request: Any) -> Any:
            return await self._call("ListDownstreams", request)

        return await all_pages(page, request, "flows")

    async def graph(
        self,
        flow: FlowLike,
        flow_kind: str | int | None = None,
        *,
        upstream_depth: int = 0,
        downstream_depth: int = 0,
        as_of: MomentLike | None = None,
    ) -> api.GetLineageGraphResponse:
        """Return the flows around one flow, and the edges among them, as they are or `as_of` an earlier moment."""
        request = api.GetLineageGraphRequest(
            flow=await flow_of(self._connection, flow, flow_kind),
            upstream_depth=upstream_depth,
            downstream_depth=downstream_depth,
        )
        if as_of is not None:
            request.as_of.CopyFrom(moment(as_of))
        answer: api.GetLineageGraphResponse = await self._call("GetLineageGraph", request)
        return answer

    async def diff(
        self,
        flow: FlowLike,
        before: MomentLike,
        after: MomentLike | None = None,
        flow_kind: str | int | None = None,
        *,
        upstream_depth: int = 0,
        downstream_depth: int = 0,
    ) -> api.DiffLineageResponse:
        """Return what differs around a flow between two moments, by default until now; the answer has all pages."""
        request = api.DiffLineageRequest(
            flow=await flow_of(self._connection, flow, flow_kind),
            before=moment(before),
            after=None if after is None else moment(after),
            upstream_depth=upstream_depth,
            downstream_depth=downstream_depth,
            page_size=LONG_DEFAULT_SIZE,
        )
        whole: api.DiffLineageResponse = await self._call("DiffLineage", request)
        request.page_token = whole.next_page_token
        while request.page_token:
            answer = await self._call("DiffLineage", request)
            whole.flows.extend(answer.flows)
            request.page_token = answer.next_page_token
        whole.ClearField("next_page_token")
        return whole

    async def order(
        self, *flows: FlowLike, flow_kind: str | int | None = None
    ) -> Sequence[Sequence[FlowRef]]:
        """Return the flows level by level: each after all of its upstreams; those of a level may run at the same time."""
        references = [await flow_of(self._connection, each, flow_kind) for each in flows]
        request = api.GetExecutionOrderRequest(flows=references)
        answer: api.GetExecutionOrderResponse = await self._call("GetExecutionOrder", request)
        return [level.flows for level in answer.levels]

    async def preview_impact(
        self, *flows: FlowLike, flow_kind: str | int | None = None, most: int = LONG_LARGEST_SIZE
    ) -> api.PreviewImpactResponse:
        """Return which flows would become stale if the output of the given flows were no longer right, and how many.

        The answer lists at most the `most` nearest, 10,000 at most; it counts all. For a change of an instance, give the
        `moved_flows` of its rehearsal.
        """
        references = [await flow_of(self._connection, each, flow_kind) for each in flows]
        request = api.PreviewImpactRequest(flows=references, page_size=most)
        answer: api.PreviewImpactResponse = await self._call("PreviewImpact", request)
        return answer

    async def accept_staleness(
        self, flow: FlowLike, reason: str, flow_kind: str | int | None = None
    ) -> lineage_pb2.FlowState:
        """Declare a stale output right for its present configuration and inputs, until a run completes."""
        reference = await flow_of(self._connection, flow, flow_kind)
        request = api.AcceptStalenessRequest(flow=reference, reason=reason)
        answer: lineage_pb2.FlowState = await self._call("AcceptStaleness", request)
        return answer

    async def revoke_accepted_staleness(
        self, flow: FlowLike, reason: str, flow_kind: str | int | None = None
    ) -> lineage_pb2.FlowState:
        """Take an acceptance back."""
        reference = await flow_of(self._connection, flow, flow_kind)
        request = api.RevokeAcceptedStalenessRequest(flow=reference, reason=reason)
        answer: lineage_pb2.FlowState = await self._call("RevokeAcceptedStaleness", request)
        return answer

    async def invalidate(
        self, flow: FlowLike, reason: str, flow_kind: str | int | None = None
    ) -> lineage_pb2.FlowState:
        """Declare a flow's output invalid until it runs again."""
        reference = await flow_of(self._connection, flow, flow_kind)
        request = api.InvalidateFlowRequest(flow=reference, reason=reason)
        answer: lineage_pb2.FlowState = await self._call("InvalidateFlow", request)
        return answer

    async def recompute(self) -> tuple[int, list[FlowRef]]:
        """Compare the stored freshness of all flows with the facts and repair it; return how many flows, and which were wrong."""
        compared, repaired = 0, list[FlowRef]()
        request = api.RecomputeFreshnessRequest(page_size=LARGEST_SIZE)
        while True:
            answer: api.RecomputeFreshnessResponse = await self._call("RecomputeFreshness", request)
            compared += answer.compared_count
            repaired += answer.repaired_flows
            if not answer.next_page_token:
                return compared, repaired
            request = api.RecomputeFreshnessRequest(page_size=LARGEST_SIZE, page_token=answer.next_page_token)
