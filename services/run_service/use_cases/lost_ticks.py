"""Settle scheduled times whose flow run will not start, because its worker died or it was cancelled in Prefect.

The tick waits for another flow run, or is recorded as missed or cancelled.
"""

from __future__ import annotations

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.run.v1 import run_pb2
from run_service.domain.errors import tick_cancelled, tick_not_started
from run_service.domain.pairing import FlowRunState
from run_service.domain.policies import Action, Policies, Situation, decide
from run_service.ports import FlowRun
from run_service.store import endings, ticks
from run_service.store import runs as run_store
from run_service.store.ticks import Tick
from run_service.use_cases.admission import WantedRun, find_flow
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.ending import make_ending
from run_service.use_cases.submission import insert_refused
from run_service.use_cases.ticks import ACTOR, policies_of
from servicekit import context
from servicekit.access import SERVICE_ROLES
from servicekit.context import RequestContext
from servicekit.enums import enum_number
from servicekit.errors import DomainError


async def lose_tick(deps: Dependencies, flow_run: FlowRun) -> None:
    """End a scheduled flow run that no worker starts or that was cancelled, and settle its tick.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND, FLOW_NOT_FOUND: it belongs to another installation.
        UnavailableError: Undecided; try again.
        ValueError: There is no flow kind of this name: it belongs to another installation.
    """
    tenant_id = flow_run.tenant_id
    request = RequestContext(tenant_id, ACTOR, deps.ids(), context.new_traceparent(), SERVICE_ROLES)
    with context.bind(request):
        number = enum_number(FlowKind, flow_run.flow_kind)
        found = await find_flow(deps, tenant_id, flow_run.instance_id, number)
    wanted = WantedRun(
        instance_id=flow_run.instance_id,
        flow_kind=found.flow.flow_kind,
        trigger=run_pb2.RUN_TRIGGER_SCHEDULE,
        actor=ACTOR,
        orchestrator_run_id=flow_run.flow_run_id,
        scheduled_time=flow_run.scheduled_time,
    )
    flow = found.key
    why = _refusal(flow_run, policies_of(found))
    async with deps.database.transaction(tenant_id) as connection:
        await endings.lock_flow_run(connection, flow_run.flow_run_id)
        if await run_store.get_adopted_run(connection, tenant_id, flow_run.flow_run_id) is not None:
            return  # started, or refused, just now
        if flow_run.state is FlowRunState.CANCELLED:
            # The flow run of a waiting tick is cancelled as well. Ticks first: one that waits no more has its run.
            waiting = await ticks.list_ticks(connection, flow)
            if flow_run.scheduled_time in {tick.scheduled_time for tick in waiting}:
                return
        ending = make_ending(
            deps,
            tenant_id,
            flow_run.flow_run_id,
            FlowRunState.CANCELLED,
            why.message if why is not None else "no worker started it; another flow run takes its place",
            instance_id=flow_run.instance_id,
        )
        await endings.insert_endings(connection, [ending])
        if await run_store.get_run_of_tick(connection, *flow, flow_run.scheduled_time) is None:
            if why is None:
                tick = Tick(flow_run.scheduled_time, flow_run.flow_run_id)
                await ticks.insert_tick(connection, flow, tick, deps.clock.now())
            else:
                await insert_refused(deps, connection, found, wanted, why)
    deps.wake_ender()


def _refusal(flow_run: FlowRun, policies: Policies) -> DomainError | None:
    """Return why the tick is not run, or None if it waits for another flow run."""
    if flow_run.state in {FlowRunState.CANCELLING, FlowRunState.CANCELLED}:
        return tick_cancelled()
    return tick_not_started() if decide(Situation.LATE, policies) is Action.REFUSE_MISSED else None
