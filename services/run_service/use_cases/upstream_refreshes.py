"""Refresh what a scheduled time finds stale above it (`upstream_policy` REFRESH); docs/schedules.md has the rule."""

from __future__ import annotations

from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import refresh_pb2
from run_service.domain.refresh_errors import too_many_upstream_flows
from run_service.domain.refreshing import FlowKey, Options, Planned, RefreshStatus
from run_service.domain.upstream_waits import Verdict
from run_service.store import ticks
from run_service.store.refresh_records import StoredRefresh
from run_service.use_cases.admission import FoundFlow
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.refresh_planning import MOST_PLANNED, find_plan, next_entries
from run_service.use_cases.refreshes import (
    DEFAULT_PARALLEL_RUNS,
    check_room,
    has_room,
    insert_refresh,
)
from run_service.use_cases.upstream_waits import MustWaitError
from servicekit.errors import ResourceExhaustedError


async def begin_refresh(
    deps: Dependencies, found: FoundFlow, tick: ticks.Tick, verdict: Verdict, actor: str
) -> bool:
    """Submit or join the refresh of a scheduled time that waits; return whether it has one now that it had not before.

    A scheduled time has one refresh at most: it is stored with the scheduled time in one transaction.

    Raises:
        ResourceExhaustedError: TOO_MANY_FLOWS, TOO_MANY_REFRESHES.
        UnavailableError: lineage-service does not answer as it should; try again.
    """
    if verdict.submits_refresh:
        return await _submit(deps, found, tick, actor)
    if not verdict.joined_refresh_id:
        return False
    async with deps.database.transaction(found.tenant_id) as connection:
        return await ticks.set_refresh_id(
            connection, found.key, tick.scheduled_time, verdict.joined_refresh_id
        )


async def _find_plan(deps: Dependencies, found: FoundFlow) -> dict[FlowKey, Planned]:
    """Return the flows of the refresh of a scheduled time: those above it in its own project.

    Whoever may change the schedule need have no role in other projects.
    """
    request = lineage_service_pb2.PlanFlowsRequest(
        flows=[edge.upstream for edge in found.flow.upstreams],
        include_upstream=True,
        max_flows=MOST_PLANNED,
    )
    most = deps.settings.refresh_flows
    try:
        plan = await find_plan(deps, found.tenant_id, request, {found.instance.project_id})
    except ResourceExhaustedError as error:
        if error.reason != "TOO_MANY_FLOWS":
            raise
        raise too_many_upstream_flows(MOST_PLANNED) from error
    if len(plan) > most:
        raise too_many_upstream_flows(most)
    return plan


async def explained(deps: Dependencies, found: FoundFlow, wait: MustWaitError) -> MustWaitError:
    """Return a wait that says so if its refresh has not begun because the tenant may have no more running ones."""
    if not wait.verdict.submits_refresh:
        return wait
    async with deps.database.read(found.tenant_id) as connection:
        return wait if await has_room(deps, connection, found.tenant_id) else wait.without_room()


async def _submit(deps: Dependencies, found: FoundFlow, tick: ticks.Tick, actor: str) -> bool:
    tenant_id, project_id = found.tenant_id, found.instance.project_id
    plan = await _find_plan(deps, found)
    entries = await next_entries({}, plan, {}, Options(max_parallel_runs=0))
    refresh = StoredRefresh(
        refresh_id=deps.ids(),
        status=RefreshStatus.RUNNING,
        selection=refresh_pb2.RefreshSelection(
            instance_ids=[found.instance.instance_id], include_upstream=True
        ),
        project_ids=frozenset({project_id}),
        mode="smart",
        on_failure="continue",
        max_parallel_runs=DEFAULT_PARALLEL_RUNS,
        actor=actor,
        submit_time=deps.clock.now(),
    )
    async with deps.database.transaction(tenant_id) as connection:
        await check_room(deps, connection, tenant_id)
        if not await ticks.set_refresh_id(connection, found.key, tick.scheduled_time, refresh.refresh_id):
            return False
        await insert_refresh(deps, connection, tenant_id, refresh, entries)
    deps.wake_refresher()
    return True
