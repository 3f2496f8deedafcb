"""The RPCs of lineage-service: each calls one use case and converts its answer; they hold no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from lineage_service import conversion
from lineage_service.domain.errors import only_services_attach
from lineage_service.domain.flows import Flow, FlowKey
from lineage_service.use_cases import admission, invalidation, reading
from lineage_service.use_cases.dependencies import Dependencies
from optaic.common.v1.flow_pb2 import FlowKind, InputVersion, VersionRef
from optaic.lineage.v1 import lineage_pb2, lineage_service_pb2, lineage_service_pb2_grpc
from servicekit import context, idempotency
from servicekit.enums import enum_number

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
        answers = await admission.check_upstream_freshness(
            self._deps, caller.tenant_id, [_question(request) for request in requests]
        )
        return [_admission_message(answer) for answer in answers]

    async def GetFlowState(
        self, request: lineage_service_pb2.GetFlowStateRequest, _context: Context
    ) -> lineage_pb2.FlowState:
        key = conversion.flow_key(request.flow)
        return _state_message(await reading.get_flow_state(self._deps, context.current().tenant_id, key))

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
        return [_state_message(state) for state in states], token

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
            flows=[_state_message(state) for state in found.states],
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
            flow_state=_state_message(state),
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
        return _state_message(state)


def _question(request: lineage_service_pb2.CheckUpstreamFreshnessRequest) -> admission.Question:
    facts = [
        conversion.run_fact_of_event(getattr(item, item.WhichOneof("event") or ""), item.event_id)
        for item in request.run_events
    ]
    return admission.Question(
        conversion.flow_key(request.flow),
        conversion.snapshot_of(request.instance) if request.HasField("instance") else None,
        [fact for fact in facts if fact is not None],
    )


def _version_message(flow: Flow) -> VersionRef:
    return VersionRef(
        version=flow.version,
        version_id=flow.version_id,
        uri=flow.uri,
        physical_version=flow.physical_version,
        digest=flow.digest,
        last_data_date=flow.last_data_date,
        compute_fingerprint=flow.right_fingerprint,
        readers_hash=flow.readers_hash,
        instance_revision=flow.computed_revision or flow.instance_revision,
    )


def _state_message(state: reading.State) -> lineage_pb2.FlowState:
    flow = state.flow
    activity, outcome, status = conversion.dimensions(
        flow.run_number <= flow.ended_run_number, flow.outcome, flow.is_fresh
    )
    message = lineage_pb2.FlowState(
        flow=conversion.flow_ref(*flow.key),
        instance_name=flow.instance_name,
        instance_kind=flow.instance_kind,  # type: ignore[arg-type]  # stored unchanged
        status=status,
        activity=activity,
        outcome=outcome,
        is_fresh=flow.is_fresh,
        causes=[conversion.cause_message(cause) for cause in state.causes],
        current_version=_version_message(flow) if flow.version else None,
        run_number=flow.run_number,
        last_run_id=flow.last_run_id,
        active_run_id=flow.last_run_id if activity == lineage_pb2.FLOW_ACTIVITY_RUNNING else "",
        rows_processed=flow.rows_processed,
        freshness_status=conversion.freshness_status(flow.overdue_date),
        revision=flow.revision,
    )
    if flow.last_run_time is not None:
        last_run_time = Timestamp()
        last_run_time.FromDatetime(flow.last_run_time)
        message.last_run_time.CopyFrom(last_run_time)
    return message


def _admission_message(
    answer: admission.Answer,
) -> lineage_service_pb2.CheckUpstreamFreshnessResponse:
    own = answer.admission.flow
    direct = answer.admission.direct
    return lineage_service_pb2.CheckUpstreamFreshnessResponse(
        all_ready=not answer.blocking,
        blocking=[_blocking_message(item) for item in answer.blocking],
        input_versions=[
            InputVersion(
                role=role,
                instance_id=flow.instance_id,
                flow_kind=enum_number(FlowKind, flow.flow_kind),
                version=flow.version,
                version_id=flow.version_id,
                digest=flow.digest,
                uri=flow.uri,
                physical_version=flow.physical_version,
                instance_name=flow.instance_name,
                # Old versions have no recorded revision: use the current one.
                instance_revision=flow.computed_revision or flow.instance_revision,
                readers_hash=flow.readers_hash,
            )
            for flow, roles in direct
            for role in roles
        ],
        base_version=_version_message(own) if own.version else None,
        lineage_revision=answer.admission.revision,
        known_runs=[
            lineage_service_pb2.KnownRun(flow=conversion.flow_ref(*flow.key), run_number=flow.run_number)
            for flow in (own, *(flow for flow, _ in direct))
        ],
        instance_revision=own.instance_revision,
    )


def _blocking_message(item: admission.Blocking) -> lineage_pb2.BlockingFlow:
    flow = item.flow
    _, _, status = conversion.dimensions(
        flow.run_number <= flow.ended_run_number, flow.outcome, flow.is_fresh
    )
    return lineage_pb2.BlockingFlow(
        flow=conversion.flow_ref(*FlowKey(flow.instance_id, flow.flow_kind)),
        instance_name=flow.instance_name,
        status=status,
        reason=item.reason,
        causes=[conversion.cause_message(cause) for cause in item.causes],
        is_missing_input=flow.version == 0,
        run_number=flow.run_number,
    )
