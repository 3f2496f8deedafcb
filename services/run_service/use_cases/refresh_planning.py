"""Plan refreshes: choose their flows, with the plans of lineage-service."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping

from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import refresh_pb2, run_service_pb2
from run_service.domain.errors import UPSTREAMS_BLOCKED
from run_service.domain.refresh_errors import plan_too_large, too_many_flows
from run_service.domain.refreshing import Entries, Entry, FlowKey, Options, Planned, RunState, advance
from run_service.domain.selections import check_selection
from run_service.store import locations
from run_service.store.refresh_records import flow_message
from run_service.use_cases.dependencies import Dependencies
from servicekit import off_loop, pages
from servicekit.context import RequestContext
from servicekit.enums import enum_number, enum_word

MOST_PLANNED = 10_000  # flows of one plan: the limit of PlanFlowsRequest.max_flows
_BYTES_OF_A_FLOW = 200  # about
_PlanRequest = lineage_service_pb2.PlanFlowsRequest


async def plan_refresh(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.PlanRefreshRequest
) -> run_service_pb2.PlanRefreshResponse:
    """Return the flows that a refresh would have, level by level; record nothing.

    Raises:
        InvalidArgumentError: The selection is none, or more than one.
        NotFoundError: INSTANCE_NOT_FOUND.
        ResourceExhaustedError: TOO_MANY_FLOWS.
    """
    is_forced = request.mode == refresh_pb2.REFRESH_MODE_FORCE
    entries = await first_entries(deps, context, request.selection, is_forced=is_forced)

    def answer() -> run_service_pb2.PlanRefreshResponse:
        flows = [flow_message(key, entry) for key, entry in _in_order(entries)]
        return run_service_pb2.PlanRefreshResponse(flows=shown_flows(context, flows))

    response = await off_loop.run_if_large(len(entries) * _BYTES_OF_A_FLOW, answer)
    if response.ByteSize() > pages.LONG_MOST_BYTES:
        raise plan_too_large(len(entries))
    return response


async def find_plan(
    deps: Dependencies, tenant_id: str, request: _PlanRequest, only: Collection[str] | None
) -> dict[FlowKey, Planned]:
    """Return the plan of lineage-service; with `only`, the flows of these projects alone.

    Raises:
        ResourceExhaustedError: TOO_MANY_FLOWS.
        UnavailableError: lineage-service does not answer as it should.
    """
    answer = await deps.peers.plan_flows(request)
    plan = await off_loop.run_if_large(answer.ByteSize(), _planned, answer)
    if only is None:
        return plan
    async with deps.database.read(tenant_id) as connection:
        projects = await locations.locate(connection, tenant_id, {key.instance_id for key in plan})
    return {key: planned for key, planned in plan.items() if projects.get(key.instance_id) in only}


def _planned(answer: lineage_service_pb2.PlanFlowsResponse) -> dict[FlowKey, Planned]:
    keys = [
        FlowKey(each.flow.instance_id, enum_word(flow_pb2.FlowKind, each.flow.flow_kind))
        for each in answer.flows
    ]
    return {
        key: Planned(
            instance_name=each.instance_name,
            status=enum_word(flow_pb2.Status, each.status),
            reason=each.reason,
            run_number=each.run_number,
            is_target=each.is_target,
            is_late_only=each.is_late_only,
            has_own_lateness=each.has_own_lateness,
            upstreams=tuple(keys[index] for index in each.upstream_indexes),
            level=each.level,
            active_run_id=each.active_run_id,
        )
        for key, each in zip(keys, answer.flows, strict=True)
    }


async def first_entries(
    deps: Dependencies,
    context: RequestContext,
    selection: refresh_pb2.RefreshSelection,
    *,
    is_forced: bool,
) -> dict[FlowKey, Entry]:
    """Return the flows of a new refresh; none of them runs yet."""
    check_selection(selection)
    most = deps.settings.refresh_flows
    instance_ids = list(dict.fromkeys(selection.instance_ids))
    if instance_ids:
        await asyncio.gather(*(deps.peers.get_instance(each) for each in instance_ids))
    elif not selection.all:
        instance_ids = await deps.peers.list_instance_ids(selection.project_id, dict(selection.labels), most)
        if len(instance_ids) > most:
            raise too_many_flows(most)
    request = _PlanRequest(
        instance_ids=instance_ids,
        all=selection.all,
        include_downstream=selection.include_downstream,
        include_upstream=selection.include_upstream,
        include_ready=is_forced,
        max_flows=most,
    )
    plan = await find_plan(deps, context.tenant_id, request, context.readable_projects)
    return await next_entries({}, plan, {}, Options(is_forced=is_forced, max_parallel_runs=0))


async def next_entries(
    entries: Entries, plan: Mapping[FlowKey, Planned], runs: Mapping[str, RunState], options: Options
) -> dict[FlowKey, Entry]:
    """Return what `advance` returns, without holding the event loop: a refresh may have ten thousand flows."""
    size = (len(entries) + len(plan)) * _BYTES_OF_A_FLOW
    return await off_loop.run_if_large(size, advance, entries, plan, runs, options)


def shown_flows(
    context: RequestContext, flows: Iterable[refresh_pb2.RefreshFlow]
) -> list[refresh_pb2.RefreshFlow]:
    """Return flows without reasons that name others, if the caller may not read all projects."""
    found = list(flows)
    if context.is_confined:
        for flow in found:
            if flow.status == refresh_pb2.REFRESH_FLOW_STATUS_BLOCKED:
                flow.reason = UPSTREAMS_BLOCKED
            elif flow.status != refresh_pb2.REFRESH_FLOW_STATUS_FAILED:
                flow.ClearField("reason")
    return found


def flow_refs(keys: Collection[FlowKey]) -> list[flow_pb2.FlowRef]:
    """Return the protobuf references to flows."""
    return [
        flow_pb2.FlowRef(instance_id=key.instance_id, flow_kind=enum_number(flow_pb2.FlowKind, key.flow_kind))
        for key in keys
    ]


def _in_order(entries: Mapping[FlowKey, Entry]) -> list[tuple[FlowKey, Entry]]:
    return sorted(entries.items(), key=lambda item: (item[1].level, item[1].instance_name, item[0]))
