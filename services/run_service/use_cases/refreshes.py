"""Plan, submit, cancel and resume refreshes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import refresh_pb2, run_service_pb2
from run_service.domain.errors import (
    UPSTREAMS_BLOCKED,
    refresh_ended,
    refresh_not_found,
    refresh_not_resumable,
    too_many_flows,
    too_many_refreshes,
)
from run_service.domain.refreshing import (
    UNSETTLED,
    Entry,
    FlowKey,
    Options,
    Planned,
    RefreshStatus,
    Skip,
    advance,
    resumed,
    skipped,
)
from run_service.domain.selections import check_selection
from run_service.domain.statuses import RunEvent
from run_service.store import locations, refreshes
from run_service.store.records import Record
from run_service.store.refresh_records import StoredRefresh, flow_message
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.transitions import announce, change_runs, error_json
from servicekit import audit, idempotency
from servicekit.context import RequestContext
from servicekit.database import Connection, lock_tenant
from servicekit.enums import enum_number, enum_word

_DEFAULT_PARALLEL_RUNS = 4
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
    entries = await _first_entries(deps, context, request.selection, is_forced=is_forced)
    flows = [flow_message(key, entry) for key, entry in _in_order(entries)]
    return run_service_pb2.PlanRefreshResponse(flows=shown_flows(context, flows))


async def submit_refresh(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.SubmitRefreshRequest
) -> refresh_pb2.Refresh:
    """Record a refresh with its flows; the loop of refreshes then submits their runs.

    Raises:
        AlreadyExistsError: REQUEST_ID_REUSED.
        ResourceExhaustedError: TOO_MANY_REFRESHES, or as `plan_refresh`, which raises the others too.
    """
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    stored = await idempotency.first_answer(
        deps.database, tenant_id, "SubmitRefresh", request.request_id, payload_hash
    )
    if stored is not None:
        return refresh_pb2.Refresh.FromString(stored)
    mode = request.mode or refresh_pb2.REFRESH_MODE_SMART
    is_forced = mode == refresh_pb2.REFRESH_MODE_FORCE
    entries = await _first_entries(deps, context, request.selection, is_forced=is_forced)
    on_failure = request.on_failure or refresh_pb2.REFRESH_FAILURE_POLICY_CONTINUE
    refresh = StoredRefresh(
        refresh_id=deps.ids(),
        status=RefreshStatus.RUNNING,
        selection=request.selection,
        project_ids=context.readable_projects,
        mode=enum_word(refresh_pb2.RefreshMode, mode),
        on_failure=enum_word(refresh_pb2.RefreshFailurePolicy, on_failure),
        max_parallel_runs=request.max_parallel_runs or _DEFAULT_PARALLEL_RUNS,
        actor=context.actor,
        submit_time=deps.clock.now(),
    )
    async with deps.database.transaction(tenant_id) as connection:
        await _check_room(deps, connection, tenant_id)
        stored = await idempotency.replay_or_none(
            connection, "SubmitRefresh", request.request_id, payload_hash
        )
        if stored is not None:
            return refresh_pb2.Refresh.FromString(stored)
        await refreshes.insert_refresh(connection, tenant_id, refresh)
        await refreshes.write_flows(connection, tenant_id, refresh.refresh_id, entries, refresh.revision)
        audit.note(f"refreshes/{refresh.refresh_id}", after=refresh.revision)
        answer = await message_of(connection, tenant_id, refresh)
        await idempotency.store(connection, "SubmitRefresh", request.request_id, answer.SerializeToString())
    deps.wake_refresher()
    return answer


async def cancel_refresh(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.CancelRefreshRequest
) -> refresh_pb2.Refresh:
    """End a running refresh: skip what waits, and cancel the active runs that it has submitted.

    Raises:
        NotFoundError: REFRESH_NOT_FOUND.
        FailedPreconditionError: REFRESH_ENDED.
        AlreadyExistsError: REQUEST_ID_REUSED.
    """
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    cancelled: Collection[Record] = ()
    async with deps.database.transaction(tenant_id) as connection:
        stored = await idempotency.replay_or_none(
            connection, "CancelRefresh", request.request_id, payload_hash
        )
        if stored is not None:
            return refresh_pb2.Refresh.FromString(stored)
        refresh = await _lock(connection, context, request.refresh_id)
        if refresh.status is not RefreshStatus.RUNNING:
            raise refresh_ended(refresh.refresh_id, refresh.status.value)
        cancelled = await cancel_runs(
            deps,
            connection,
            tenant_id,
            await refreshes.list_active_runs(connection, tenant_id, refresh.refresh_id),
            context.actor,
        )
        entries = await refreshes.list_flows(connection, tenant_id, refresh.refresh_id)
        left = {
            key: skipped(entry, Skip.CANCELLED, "the refresh was cancelled")
            for key, entry in entries.items()
            if entry.progress in UNSETTLED
        }
        refresh = await end_refresh(
            deps,
            connection,
            tenant_id,
            replace(refresh, cancel_reason=request.reason),
            RefreshStatus.CANCELLED,
            left,
        )
        audit.note(
            f"refreshes/{refresh.refresh_id}",
            before=refresh.revision - 1,
            after=refresh.revision,
            reason=request.reason,
        )
        answer = await message_of(connection, tenant_id, refresh)
        await idempotency.store(connection, "CancelRefresh", request.request_id, answer.SerializeToString())
    announce(deps, tenant_id, cancelled)
    deps.refresh_hints.tell(refresh.refresh_id)
    return answer


async def resume_refresh(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.ResumeRefreshRequest
) -> refresh_pb2.Refresh:
    """Continue a failed or cancelled refresh with the flows that it has not brought up to date.

    Raises:
        NotFoundError: REFRESH_NOT_FOUND.
        FailedPreconditionError: REFRESH_NOT_RESUMABLE.
        AlreadyExistsError: REQUEST_ID_REUSED.
        ResourceExhaustedError: TOO_MANY_REFRESHES.
    """
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    async with deps.database.transaction(tenant_id) as connection:
        await _check_room(deps, connection, tenant_id)
        stored = await idempotency.replay_or_none(
            connection, "ResumeRefresh", request.request_id, payload_hash
        )
        if stored is not None:
            return refresh_pb2.Refresh.FromString(stored)
        refresh = await _lock(connection, context, request.refresh_id)
        if refresh.status not in {RefreshStatus.FAILED, RefreshStatus.CANCELLED}:
            raise refresh_not_resumable(refresh.refresh_id, refresh.status.value)
        entries = await refreshes.list_flows(connection, tenant_id, refresh.refresh_id)
        again = {key: resumed(entry) for key, entry in entries.items()}
        values = {
            "status": RefreshStatus.RUNNING.value,
            "end_time": None,
            "cancel_reason": "",
            "due_time": deps.clock.now(),
        }
        await refreshes.update_refresh(connection, tenant_id, refresh, values)
        refresh = replace(
            refresh,
            status=RefreshStatus.RUNNING,
            end_time=None,
            cancel_reason="",
            revision=refresh.revision + 1,
        )
        changed = {key: entry for key, entry in again.items() if entry != entries[key]}
        await refreshes.write_flows(connection, tenant_id, refresh.refresh_id, changed, refresh.revision)
        audit.note(f"refreshes/{refresh.refresh_id}", before=refresh.revision - 1, after=refresh.revision)
        answer = await message_of(connection, tenant_id, refresh)
        await idempotency.store(connection, "ResumeRefresh", request.request_id, answer.SerializeToString())
    deps.wake_refresher()
    return answer


async def cancel_runs(
    deps: Dependencies, connection: Connection, tenant_id: str, run_ids: Collection[str], actor: str
) -> list[Record]:
    """Cancel runs because their refresh was cancelled; return them, for `announce` after the commit."""
    message = "the refresh that submitted the run was cancelled"
    return await change_runs(
        deps,
        connection,
        tenant_id,
        run_ids,
        RunEvent.CANCELLED,
        actor=actor,
        message=message,
        values={"error": error_json("CANCELLED", message)},
    )


async def end_refresh(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    refresh: StoredRefresh,
    status: RefreshStatus,
    changed: Mapping[FlowKey, Entry],
) -> StoredRefresh:
    """End a locked refresh with the last changes of its flows; return it as it is then."""
    now = deps.clock.now()
    values = {
        "status": status.value,
        "end_time": now,
        "due_time": None,
        "cancel_reason": refresh.cancel_reason,
    }
    await refreshes.update_refresh(connection, tenant_id, refresh, values)
    ended = replace(refresh, status=status, end_time=now, revision=refresh.revision + 1)
    await refreshes.write_flows(connection, tenant_id, refresh.refresh_id, changed, ended.revision)
    return ended


async def message_of(connection: Connection, tenant_id: str, refresh: StoredRefresh) -> refresh_pb2.Refresh:
    """Return the public message of a refresh, with the counts of its flows."""
    counts = await refreshes.count_flows(connection, tenant_id, [refresh.refresh_id])
    return refresh.message(counts[refresh.refresh_id])


async def find_plan(
    deps: Dependencies, tenant_id: str, request: _PlanRequest, only: Collection[str] | None
) -> dict[FlowKey, Planned]:
    """Return the plan of lineage-service; with `only`, the flows of these projects alone.

    Raises:
        ResourceExhaustedError: TOO_MANY_FLOWS.
        UnavailableError: lineage-service does not answer as it should.
    """
    answer = await deps.peers.plan_flows(request)
    keys = [
        FlowKey(each.flow.instance_id, enum_word(flow_pb2.FlowKind, each.flow.flow_kind))
        for each in answer.flows
    ]
    plan = {
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
    if only is None:
        return plan
    async with deps.database.read(tenant_id) as connection:
        projects = await locations.locate(connection, tenant_id, {key.instance_id for key in plan})
    return {key: planned for key, planned in plan.items() if projects.get(key.instance_id) in only}


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


async def _first_entries(
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
    return advance({}, plan, {}, Options(is_forced=is_forced, max_parallel_runs=0))


def _in_order(entries: Mapping[FlowKey, Entry]) -> list[tuple[FlowKey, Entry]]:
    return sorted(entries.items(), key=lambda item: (item[1].level, item[1].instance_name, item[0]))


async def _check_room(deps: Dependencies, connection: Connection, tenant_id: str) -> None:
    limit = deps.settings.tenant_refreshes
    await lock_tenant(connection, tenant_id)
    if await refreshes.count_running(connection, tenant_id, limit) >= limit:
        raise too_many_refreshes(limit)


async def _lock(connection: Connection, context: RequestContext, refresh_id: str) -> StoredRefresh:
    refresh = await refreshes.get_refresh(
        connection, context.tenant_id, refresh_id, only=context.readable_projects, lock=True
    )
    if refresh is None:
        raise refresh_not_found(refresh_id)
    return refresh
