"""The RPCs of lineage-service: each calls one use case and converts its answer; they hold no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc

from lineage_service import conversion
from lineage_service.domain.errors import only_services_attach
from lineage_service.use_cases import admission, invalidation, reading
from lineage_service.use_cases.dependencies import Dependencies
from optaic.lineage.v1 import lineage_pb2, lineage_service_pb2, lineage_service_pb2_grpc
from servicekit import context, idempotency

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class LineageServicer(lineage_service_pb2_grpc.LineageServiceServicer):
    """The implementation of `optaic.lineage.v1.LineageService`."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def CheckUpstreamFreshness(
        self, request: lineage_service_pb2.CheckUpstreamFreshnessRequest, _context: Context
    ) -> lineage_service_pb2.CheckUpstreamFreshnessResponse:
        return (await self._check([request]))[0]

    async def BatchCheckUpstreamFreshness(
        self, request: lineage_service_pb2.BatchCheckUpstreamFreshnessRequest, _context: Context
    ) -> lineage_service_pb2.BatchCheckUpstreamFreshnessResponse:
        return lineage_service_pb2.BatchCheckUpstreamFreshnessResponse(
            responses=await self._check(request.requests)
        )

    async def _check(
        self, requests: Sequence[lineage_service_pb2.CheckUpstreamFreshnessRequest]
    ) -> list[lineage_service_pb2.CheckUpstreamFreshnessResponse]:
        caller = context.current()
        if not caller.is_service and any(
            request.HasField("instance") or request.run_events for request in requests
        ):
            raise only_services_attach()
        questions = [
            admission.Question(
                conversion.flow_key(request.flow),
                conversion.snapshot_of(request.instance) if request.HasField("instance") else None,
                conversion.attached_facts(request.run_events),
            )
            for request in requests
        ]
        answers = await admission.check_upstream_freshness(self._deps, caller.tenant_id, questions)
        return [
            conversion.admission_message(
                answer.admission.revision,
                answer.admission.flow,
                answer.admission.direct,
                [
                    conversion.blocking_message(item.flow, item.reason, item.causes)
                    for item in answer.blocking
                ],
            )
            for answer in answers
        ]

    async def GetFlowState(
        self, request: lineage_service_pb2.GetFlowStateRequest, _context: Context
    ) -> lineage_pb2.FlowState:
        key = conversion.flow_key(request.flow)
        state = await reading.get_flow_state(self._deps, context.current().tenant_id, key)
        return conversion.state_message(state.flow, state.causes)

    async def ListUpstreams(
        self, request: lineage_service_pb2.ListUpstreamsRequest, _context: Context
    ) -> lineage_service_pb2.ListUpstreamsResponse:
        states, token = await self._list_neighbours(request, is_upstream=True)
        return lineage_service_pb2.ListUpstreamsResponse(flows=states, next_page_token=token)

    async def ListDownstreams(
        self, request: lineage_service_pb2.ListDownstreamsRequest, _context: Context
    ) -> lineage_service_pb2.ListDownstreamsResponse:
        states, token = await self._list_neighbours(request, is_upstream=False)
        return lineage_service_pb2.ListDownstreamsResponse(flows=states, next_page_token=token)

    async def _list_neighbours(
        self,
        request: lineage_service_pb2.ListUpstreamsRequest | lineage_service_pb2.ListDownstreamsRequest,
        *,
        is_upstream: bool,
    ) -> tuple[list[lineage_pb2.FlowState], str]:
        states, token = await reading.list_neighbours(
            self._deps,
            context.current().tenant_id,
            conversion.flow_key(request.flow),
            is_upstream=is_upstream,
            max_depth=request.max_depth,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return [conversion.state_message(state.flow, state.causes) for state in states], token

    async def GetLineageGraph(
        self, request: lineage_service_pb2.GetLineageGraphRequest, _context: Context
    ) -> lineage_service_pb2.GetLineageGraphResponse:
        found = await reading.get_lineage_graph(
            self._deps,
            context.current().tenant_id,
            conversion.flow_key(request.flow),
            request.upstream_depth,
            request.downstream_depth,
        )
        return lineage_service_pb2.GetLineageGraphResponse(
            flows=[conversion.state_message(state.flow, state.causes) for state in found.states],
            edges=[
                lineage_pb2.Edge(
                    upstream=conversion.flow_ref(*found.keys[edge.upstream_id]),
                    downstream=conversion.flow_ref(*found.keys[edge.downstream_id]),
                    role=edge.role,
                    kind=edge.kind,  # type: ignore[arg-type]  # stored unchanged
                    consumed_version=edge.consumed_version,
                )
                for edge in found.edges
            ],
            is_truncated=found.is_truncated,
        )

    async def GetExecutionOrder(
        self, request: lineage_service_pb2.GetExecutionOrderRequest, _context: Context
    ) -> lineage_service_pb2.GetExecutionOrderResponse:
        keys = [conversion.flow_key(flow) for flow in request.flows]
        levels = await reading.get_execution_order(self._deps, context.current().tenant_id, keys)
        return lineage_service_pb2.GetExecutionOrderResponse(
            levels=[
                lineage_service_pb2.ExecutionLevel(flows=[conversion.flow_ref(*key) for key in level])
                for level in levels
            ]
        )

    async def ExplainStaleness(
        self, request: lineage_service_pb2.ExplainStalenessRequest, _context: Context
    ) -> lineage_service_pb2.ExplainStalenessResponse:
        state, explanations = await reading.explain_staleness(
            self._deps, context.current().tenant_id, conversion.flow_key(request.flow)
        )
        return lineage_service_pb2.ExplainStalenessResponse(
            flow_state=conversion.state_message(state.flow, state.causes),
            explanations=[
                lineage_pb2.StalenessExplanation(
                    cause=conversion.cause_message(item.cause),
                    direct_upstream=conversion.flow_ref(*item.direct_upstream.key)
                    if item.direct_upstream
                    else None,
                    path=[
                        lineage_pb2.PathStep(
                            flow=conversion.flow_ref(*flow.key), instance_name=flow.instance_name
                        )
                        for flow in item.path
                    ],
                )
                for item in explanations
            ],
        )

    async def InvalidateFlow(
        self, request: lineage_service_pb2.InvalidateFlowRequest, _context: Context
    ) -> lineage_pb2.FlowState:
        state = await invalidation.invalidate_flow(
            self._deps,
            context.current().tenant_id,
            conversion.flow_key(request.flow),
            request.reason,
            request.request_id,
            idempotency.payload_hash(request),
            actor=context.current().actor,
        )
        return conversion.state_message(state.flow, state.causes)
