"""The RPCs of lineage-service: each calls one use case."""

from __future__ import annotations

from typing import Any

from lineage_service.use_cases import (
    acceptance,
    admission,
    differences,
    impact,
    invalidation,
    moving,
    planning,
    reading,
    recomputation,
)
from lineage_service.use_cases.dependencies import Dependencies
from optaic.lineage.v1 import lineage_service_pb2 as api
from optaic.lineage.v1.lineage_pb2 import FlowState
from optaic.lineage.v1.lineage_service_pb2_grpc import LineageServiceServicer
from servicekit.context import current


class LineageServicer(LineageServiceServicer):
    """The service optaic.lineage.v1.LineageService."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def CheckUpstreamFreshness(
        self, request: api.CheckUpstreamFreshnessRequest, _context: Any
    ) -> api.CheckUpstreamFreshnessResponse:
        return await admission.check_upstream_freshness(self._deps, current(), request)

    async def BatchCheckUpstreamFreshness(
        self, request: api.BatchCheckUpstreamFreshnessRequest, _context: Any
    ) -> api.BatchCheckUpstreamFreshnessResponse:
        return await admission.batch_check_upstream_freshness(self._deps, current(), request)

    async def PlanFlows(self, request: api.PlanFlowsRequest, _context: Any) -> api.PlanFlowsResponse:
        return await planning.plan_flows(self._deps, current().tenant_id, request)

    async def GetFlowState(self, request: api.GetFlowStateRequest, _context: Any) -> FlowState:
        return await reading.get_flow_state(self._deps, current().tenant_id, request)

    async def ListUpstreams(
        self, request: api.ListUpstreamsRequest, _context: Any
    ) -> api.ListUpstreamsResponse:
        return await reading.list_upstreams(self._deps, current().tenant_id, request)

    async def ListDownstreams(
        self, request: api.ListDownstreamsRequest, _context: Any
    ) -> api.ListDownstreamsResponse:
        return await reading.list_downstreams(self._deps, current().tenant_id, request)

    async def GetLineageGraph(
        self, request: api.GetLineageGraphRequest, _context: Any
    ) -> api.GetLineageGraphResponse:
        return await reading.get_lineage_graph(self._deps, current().tenant_id, request)

    async def DiffLineage(self, request: api.DiffLineageRequest, _context: Any) -> api.DiffLineageResponse:
        return await differences.diff_lineage(self._deps, current().tenant_id, request)

    async def GetExecutionOrder(
        self, request: api.GetExecutionOrderRequest, _context: Any
    ) -> api.GetExecutionOrderResponse:
        return await reading.get_execution_order(self._deps, current().tenant_id, request)

    async def ExplainStaleness(
        self, request: api.ExplainStalenessRequest, _context: Any
    ) -> api.ExplainStalenessResponse:
        return await reading.explain_staleness(self._deps, current().tenant_id, request)

    async def PreviewImpact(
        self, request: api.PreviewImpactRequest, _context: Any
    ) -> api.PreviewImpactResponse:
        return await impact.preview_impact(self._deps, current(), request)

    async def InvalidateFlow(self, request: api.InvalidateFlowRequest, _context: Any) -> FlowState:
        return await invalidation.invalidate_flow(self._deps, current(), request)

    async def AcceptStaleness(self, request: api.AcceptStalenessRequest, _context: Any) -> FlowState:
        return await acceptance.accept_staleness(self._deps, current(), request)

    async def RevokeAcceptedStaleness(
        self, request: api.RevokeAcceptedStalenessRequest, _context: Any
    ) -> FlowState:
        return await acceptance.revoke_accepted_staleness(self._deps, current(), request)

    async def RecomputeFreshness(
        self, request: api.RecomputeFreshnessRequest, _context: Any
    ) -> api.RecomputeFreshnessResponse:
        return await recomputation.recompute_freshness(self._deps, current(), request)

    async def MoveDataRoot(self, request: api.MoveDataRootRequest, _context: Any) -> api.MoveDataRootResponse:
        return await moving.move_data_root(self._deps, current(), request)
