"""Carry running refreshes on: plan again, decide, store the decision, then submit what is to run.

Every write can be the last before a crash: a flow is stored as RUNNING before its run is submitted, and the submission has a
request id of its own, so that the next step submits it again and gets the same run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_events_pb2, lineage_service_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.refreshing import (
    OVERTAKEN,
    Entry,
    FlowKey,
    Progress,
    RefreshStatus,
    refused,
    status_of,
    submitted,
)
from run_service.store import refreshes
from run_service.store.records import Record
from run_service.store.refresh_records import StoredRefresh
from run_service.store.refreshes import RefreshKey
from run_service.use_cases.admission import WantedRun
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.refresh_planning import MOST_PLANNED, find_plan, flow_refs, next_entries
from run_service.use_cases.refreshes import cancel_runs, end_refresh, write_flows
from run_service.use_cases.submission import submit_once
from run_service.use_cases.transitions import announce
from servicekit.access import SERVICE_ROLES
from servicekit.consumer import Received
from servicekit.context import RequestContext, bind, new_traceparent
from servicekit.database import Connection
from servicekit.enums import enum_number
from servicekit.errors import AlreadyExistsError, DomainError, UnavailableError

_METHOD = "SubmitRefresh/run"
_MOST_STEPS = 20  # at once; then others have their turn
_log = structlog.get_logger(__name__)


async def wake_concerned(
    deps: Dependencies, connection: Connection, tenant_id: str, batch: Sequence[Received]
) -> bool:
    """Have the running refreshes looked at whose flows have changed; return whether there are any."""
    instance_ids = {
        change.flow.instance_id
        for item in batch
        if isinstance(item.message, lineage_events_pb2.FlowStatusesChanged)
        for change in item.message.changes
    }
    if not instance_ids:
        return False
    return await refreshes.wake_refreshes(connection, tenant_id, instance_ids, deps.clock.now())


async def carry_on(deps: Dependencies, key: RefreshKey) -> None:
    """Carry a refresh on as far as it goes now.

    Raises:
        UnavailableError: A service that is needed does not answer; try again.
    """
    tenant_id, refresh_id = key
    request = RequestContext(tenant_id, "refresh", deps.ids(), new_traceparent(), SERVICE_ROLES)
    with bind(request):
        for _ in range(_MOST_STEPS):
            if not await _step(deps, tenant_id, refresh_id):
                break
    deps.refresh_hints.tell(refresh_id)


async def _step(deps: Dependencies, tenant_id: str, refresh_id: str) -> bool:
    """Make one step; return whether its outcome asks for another one at once."""
    async with deps.database.read(tenant_id) as connection:
        refresh = await refreshes.get_refresh(connection, tenant_id, refresh_id)
        if refresh is None or refresh.status is not RefreshStatus.RUNNING:
            return False
        entries = await refreshes.list_flows(connection, tenant_id, refresh_id)
        run_ids = {
            entry.run_id for entry in entries.values() if entry.progress is Progress.RUNNING and entry.run_id
        }
        # Read before the plan, which so knows of each run at least what is read here.
        runs = await refreshes.list_run_states(connection, tenant_id, run_ids)
    plan = await find_plan(deps, tenant_id, _request(refresh, entries), refresh.project_ids)
    decided = await next_entries(entries, plan, runs, refresh.options)
    changed = {key: entry for key, entry in decided.items() if entry != entries.get(key)}
    status = status_of(decided)
    if changed or status is not RefreshStatus.RUNNING:
        async with deps.database.transaction(tenant_id) as connection:
            now = await refreshes.get_refresh(connection, tenant_id, refresh_id, lock=True)
            if now is None or now.revision != refresh.revision:
                return True  # another replica, or somebody who cancelled it, was faster
            if status is RefreshStatus.RUNNING:
                await refreshes.update_refresh(connection, tenant_id, refresh, {})
                newer = replace(refresh, revision=refresh.revision + 1)
                has_woken = await write_flows(deps, connection, tenant_id, newer, changed)
            else:
                _, has_woken = await end_refresh(deps, connection, tenant_id, refresh, status, changed)
        deps.refresh_hints.tell(refresh_id)
        if has_woken:
            deps.wake_ticker()
    return await _submit_all(deps, tenant_id, refresh, decided)


def _request(
    refresh: StoredRefresh, entries: Mapping[FlowKey, Entry]
) -> lineage_service_pb2.PlanFlowsRequest:
    """Return the question for the plan: what the refresh has, and what new edges add to its targets."""
    targets = [key for key, entry in entries.items() if entry.is_target]
    return lineage_service_pb2.PlanFlowsRequest(
        flows=flow_refs(targets),
        planned=flow_refs(entries.keys()),
        include_downstream=refresh.selection.include_downstream or refresh.selection.all,
        include_upstream=refresh.selection.include_upstream,
        include_ready=refresh.options.is_forced,
        # Flows of other projects, which the refresh has no part in, do not count against its own limit.
        max_flows=MOST_PLANNED,
    )


async def _submit_all(
    deps: Dependencies,
    tenant_id: str,
    refresh: StoredRefresh,
    decided: Mapping[FlowKey, Entry],
) -> bool:
    """Submit the runs of the flows that are RUNNING without one; return whether a refusal asks for another step."""
    asks_again = False
    for key, entry in decided.items():
        if entry.progress is not Progress.RUNNING or entry.run_id:
            continue
        try:
            outcome = await _submit(deps, tenant_id, refresh, key, entry)
        except DomainError as error:
            if isinstance(error, UnavailableError) and error.reason != OVERTAKEN:
                _log.warning("run of a refresh postponed", refresh=refresh.refresh_id, error=repr(error))
                continue  # it is due again when the claim expires
            statuses = frozenset(each.type for each in error.preconditions)
            outcome = refused(entry, error.reason, error.message, statuses)
            is_waiting = outcome.progress is Progress.WAITING and not outcome.is_refused
            asks_again |= error.reason == OVERTAKEN or not is_waiting
        await _store(deps, tenant_id, refresh, key, entry, outcome)
    return asks_again


async def _submit(
    deps: Dependencies,
    tenant_id: str,
    refresh: StoredRefresh,
    key: FlowKey,
    entry: Entry,
) -> Entry:
    """Submit the run of a flow, or join its active run; return the flow as it is then.

    Raises:
        DomainError: The refusal of the run.
    """
    flow_kind = enum_number(flow_pb2.FlowKind, key.flow_kind)
    request = run_service_pb2.SubmitRunRequest(
        instance_id=key.instance_id,
        flow_kind=flow_kind,
        request_id=f"{refresh.refresh_id}/{key.instance_id}/{key.flow_kind}/{entry.attempt}",
    )
    wanted = WantedRun(
        instance_id=key.instance_id,
        flow_kind=flow_kind,
        trigger=run_pb2.RUN_TRIGGER_MANUAL,
        actor=refresh.actor,
        refresh_id=refresh.refresh_id,
        run_number=entry.run_number,
    )
    try:
        run = await submit_once(deps, tenant_id, wanted, _METHOD, request, request.request_id)
    except AlreadyExistsError as error:
        if error.reason != "RUN_ACTIVE":
            raise
        number = int(error.metadata["run_number"])
        return submitted(entry, error.metadata["run_id"], number, is_joined=True)
    return submitted(entry, run.run_id, run.run_number, is_joined=False)


async def _store(
    deps: Dependencies, tenant_id: str, refresh: StoredRefresh, key: FlowKey, before: Entry, outcome: Entry
) -> None:
    """Store what became of a submission; if the refresh was cancelled meanwhile, cancel the new run too."""
    cancelled, has_woken = list[Record](), False
    async with deps.database.transaction(tenant_id) as connection:
        now = await refreshes.get_refresh(connection, tenant_id, refresh.refresh_id, lock=True)
        if now is None:
            return
        stored = (await refreshes.list_flows(connection, tenant_id, refresh.refresh_id, only=key)).get(key)
        if now.status is RefreshStatus.RUNNING:
            if stored is not None and stored.progress is Progress.RUNNING and not stored.run_id:
                await refreshes.update_refresh(connection, tenant_id, now, {})
                newer = replace(now, revision=now.revision + 1)
                has_woken = await write_flows(deps, connection, tenant_id, newer, {key: outcome})
        elif (
            outcome.run_id
            and not outcome.is_joined
            and stored is not None
            and stored.attempt == before.attempt
        ):
            cancelled = await cancel_runs(deps, connection, tenant_id, [outcome.run_id], now.actor)
    announce(deps, tenant_id, cancelled)
    if has_woken:
        deps.wake_ticker()
    deps.refresh_hints.tell(refresh.refresh_id)
