"""Submit, cancel and resume refreshes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from optaic.rules.events import REFRESH_ENDED, REFRESH_RESUMED, REFRESH_SUBMITTED
from optaic.run.v1 import refresh_pb2, run_service_pb2
from run_service.domain.refresh_errors import (
    refresh_ended,
    refresh_not_found,
    refresh_not_resumable,
    too_many_refreshes,
)
from run_service.domain.refreshing import (
    UNSETTLED,
    Entry,
    FlowKey,
    RefreshStatus,
    Skip,
    resumed,
    skipped,
)
from run_service.domain.statuses import RunEvent
from run_service.events import refresh_event
from run_service.store import refreshes, ticks
from run_service.store.records import Record
from run_service.store.refresh_records import StoredRefresh
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.refresh_planning import first_entries
from run_service.use_cases.transitions import announce, change_runs, error_json
from servicekit import audit, idempotency, outbox
from servicekit.context import RequestContext
from servicekit.database import Connection, lock_tenant
from servicekit.enums import enum_word
from servicekit.events import check_size

DEFAULT_PARALLEL_RUNS = 4


async def submit_refresh(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.SubmitRefreshRequest
) -> refresh_pb2.Refresh:
    """Record a refresh with its flows; the loop of refreshes then submits their runs.

    Raises:
        AlreadyExistsError: REQUEST_ID_REUSED.
        InvalidArgumentError: TOO_LARGE: the selection.
        ResourceExhaustedError: TOO_MANY_REFRESHES, or as `plan_refresh`, which raises the others too.
    """
    check_size(request.selection, "selection")
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    stored = await idempotency.first_answer(
        deps.database, tenant_id, "SubmitRefresh", request.request_id, payload_hash
    )
    if stored is not None:
        return refresh_pb2.Refresh.FromString(stored)
    mode = request.mode or refresh_pb2.REFRESH_MODE_SMART
    is_forced = mode == refresh_pb2.REFRESH_MODE_FORCE
    entries = await first_entries(deps, context, request.selection, is_forced=is_forced)
    on_failure = request.on_failure or refresh_pb2.REFRESH_FAILURE_POLICY_CONTINUE
    refresh = StoredRefresh(
        refresh_id=deps.ids(),
        status=RefreshStatus.RUNNING,
        selection=request.selection,
        project_ids=context.readable_projects,
        mode=enum_word(refresh_pb2.RefreshMode, mode),
        on_failure=enum_word(refresh_pb2.RefreshFailurePolicy, on_failure),
        max_parallel_runs=request.max_parallel_runs or DEFAULT_PARALLEL_RUNS,
        actor=context.actor,
        submit_time=deps.clock.now(),
    )
    async with deps.database.transaction(tenant_id) as connection:
        await check_room(deps, connection, tenant_id)
        stored = await idempotency.replay_or_none(
            connection, "SubmitRefresh", request.request_id, payload_hash
        )
        if stored is not None:
            return refresh_pb2.Refresh.FromString(stored)
        answer = await insert_refresh(deps, connection, tenant_id, refresh, entries)
        await idempotency.store(connection, "SubmitRefresh", request.request_id, answer.SerializeToString())
    deps.wake_refresher()
    return answer


async def insert_refresh(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    refresh: StoredRefresh,
    entries: Mapping[FlowKey, Entry],
) -> refresh_pb2.Refresh:
    """Insert a new refresh with its flows and its event; return its public message."""
    await refreshes.insert_refresh(connection, tenant_id, refresh)
    await refreshes.write_flows(connection, tenant_id, refresh.refresh_id, entries, refresh.revision)
    audit.note(f"refreshes/{refresh.refresh_id}", after=refresh.revision)
    message = await message_of(connection, tenant_id, refresh)
    await _publish(deps, connection, tenant_id, REFRESH_SUBMITTED, message)
    return message


async def _publish(
    deps: Dependencies, connection: Connection, tenant_id: str, happening: str, message: refresh_pb2.Refresh
) -> None:
    event = refresh_event(happening, tenant_id, message, deps.clock, deps.ids)
    await outbox.append(connection, [event], is_awaited=False)


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
        answer, has_woken = await end_refresh(
            deps,
            connection,
            tenant_id,
            replace(refresh, cancel_reason=request.reason),
            RefreshStatus.CANCELLED,
            left,
        )
        audit.note(
            f"refreshes/{answer.refresh_id}",
            before=answer.revision - 1,
            after=answer.revision,
            reason=request.reason,
        )
        await idempotency.store(connection, "CancelRefresh", request.request_id, answer.SerializeToString())
    announce(deps, tenant_id, cancelled)
    deps.refresh_hints.tell(answer.refresh_id)
    if has_woken:
        deps.wake_ticker()
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
        await check_room(deps, connection, tenant_id)
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
        await _publish(deps, connection, tenant_id, REFRESH_RESUMED, answer)
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
) -> tuple[refresh_pb2.Refresh, bool]:
    """End a locked refresh with the last changes of its flows; return its public message, and what `write_flows` returns."""
    now = deps.clock.now()
    values = {
        "status": status.value,
        "end_time": now,
        "due_time": None,
        "cancel_reason": refresh.cancel_reason,
    }
    await refreshes.update_refresh(connection, tenant_id, refresh, values)
    ended = replace(refresh, status=status, end_time=now, revision=refresh.revision + 1)
    has_woken = await write_flows(deps, connection, tenant_id, ended, changed)
    message = await message_of(connection, tenant_id, ended)
    await _publish(deps, connection, tenant_id, REFRESH_ENDED, message)
    return message, has_woken


async def write_flows(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    refresh: StoredRefresh,
    changed: Mapping[FlowKey, Entry],
) -> bool:
    """Write flows of a refresh at its new revision; have the scheduled times looked at that wait for those that it has settled.

    Return whether there are any: then wake the ticker after the commit.
    """
    await refreshes.write_flows(connection, tenant_id, refresh.refresh_id, changed, refresh.revision)
    settled = {key.instance_id for key, entry in changed.items() if entry.progress not in UNSETTLED}
    return bool(settled) and await ticks.wake_waiting(connection, tenant_id, settled, deps.clock.now())


async def message_of(connection: Connection, tenant_id: str, refresh: StoredRefresh) -> refresh_pb2.Refresh:
    """Return the public message of a refresh, with the counts of its flows."""
    counts = await refreshes.count_flows(connection, tenant_id, [refresh.refresh_id])
    return refresh.message(counts[refresh.refresh_id])


async def check_room(deps: Dependencies, connection: Connection, tenant_id: str) -> None:
    """Refuse one more running refresh at the limit, under the tenant's lock.

    Raises:
        ResourceExhaustedError: TOO_MANY_REFRESHES.
    """
    await lock_tenant(connection, tenant_id)
    if not await has_room(deps, connection, tenant_id):
        raise too_many_refreshes(deps.settings.tenant_refreshes)


async def has_room(deps: Dependencies, connection: Connection, tenant_id: str) -> bool:
    """Return whether the tenant may have one more running refresh at this moment."""
    limit = deps.settings.tenant_refreshes
    return await refreshes.count_running(connection, tenant_id, limit) < limit


async def _lock(connection: Connection, context: RequestContext, refresh_id: str) -> StoredRefresh:
    refresh = await refreshes.get_refresh(
        connection, context.tenant_id, refresh_id, only=context.readable_projects, lock=True
    )
    if refresh is None:
        raise refresh_not_found(refresh_id)
    return refresh
