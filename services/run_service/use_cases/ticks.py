"""What a schedule's policies make of a tick that comes late, or while a run is active; docs/schedules.md has the rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.instance.v1 import instance_pb2, schedule_pb2
from optaic.run.v1 import run_pb2
from run_service.domain.errors import instance_paused, tick_skipped, tick_superseded, tick_too_late
from run_service.domain.statuses import RunEvent
from run_service.store import runs as run_store
from run_service.store import ticks as store
from run_service.store.ticks import FlowKey, Tick
from run_service.use_cases.admission import Admission, ask, find_flow
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.submission import Draft, insert_refused, insert_run
from run_service.use_cases.transitions import announce, change_runs, error_json
from servicekit import context
from servicekit.context import RequestContext
from servicekit.enums import enum_number
from servicekit.errors import (
    AlreadyExistsError,
    DomainError,
    FailedPreconditionError,
    NotFoundError,
)

ACTOR = "schedule"
_CANCEL = schedule_pb2.OVERLAP_POLICY_CANCEL_PREVIOUS
_QUEUE = schedule_pb2.OVERLAP_POLICY_QUEUE_ONE
_ALL = schedule_pb2.CATCH_UP_POLICY_ALL
_NONE = schedule_pb2.CATCH_UP_POLICY_NONE
_log = structlog.get_logger(__name__)


def check_not_paused(found: Admission) -> None:
    """Refuse a tick of a paused instance.

    Raises:
        FailedPreconditionError: INSTANCE_PAUSED.
    """
    if found.instance.state == instance_pb2.INSTANCE_STATE_PAUSED:
        raise instance_paused(found.instance.name)


def check_in_time(deps: Dependencies, found: Admission, draft: Draft) -> None:
    """Refuse a late tick where the policy catches up with none.

    Raises:
        FailedPreconditionError: TICK_MISSED.
    """
    if found.instance.schedule.catch_up_policy == _NONE and is_late(deps, draft):
        raise tick_too_late(deps.settings.tick_grace_seconds)


def is_late(deps: Dependencies, draft: Draft) -> bool:
    """Return whether a tick comes so late that others may have passed, too."""
    assert draft.scheduled_time is not None
    return deps.clock.now() - draft.scheduled_time > timedelta(seconds=deps.settings.tick_grace_seconds)


async def make_wait(
    deps: Dependencies, found: Admission, draft: Draft, *, is_overlap: bool = False
) -> run_pb2.Run | None:
    """Keep a tick for later; return what its flow run is told, None where the policy lets nothing wait.

    Late ticks wait a moment for each other: only then is known which is the latest.
    """
    assert draft.scheduled_time is not None
    settings, flow = deps.settings, _key(found)
    tick = Tick(draft.scheduled_time, draft.orchestrator_run_id)
    async with deps.database.transaction(found.tenant_id) as connection:
        waiting = {each.scheduled_time for each in await store.list_ticks(connection, flow)}
        if tick.scheduled_time not in waiting:
            if is_overlap and (waiting or found.instance.schedule.overlap_policy != _QUEUE):
                return None
            seconds = settings.tick_interval_seconds if is_overlap else settings.tick_settle_seconds
            await store.insert_tick(connection, flow, tick, deps.clock.now() + timedelta(seconds=seconds))
    run = run_pb2.Run(instance_id=draft.instance_id, status=run_pb2.RUN_STATUS_PENDING)
    run.error.type, run.error.message = (
        "TICK_WAITING",
        "the tick's run is dispatched anew when its turn comes",
    )
    return run


async def give_way(deps: Dependencies, found: Admission, draft: Draft) -> run_pb2.Run | None:
    """Settle a punctual tick with those that wait; return what its flow run is told where it waits behind them.

    Raises:
        FailedPreconditionError: One waits already, and no more may.
    """
    assert draft.scheduled_time is not None
    flow, schedule = _key(found), found.instance.schedule
    async with deps.database.read(found.tenant_id) as connection:
        listed = await store.list_ticks(connection, flow)
    waiting = [tick for tick in listed if tick.scheduled_time != draft.scheduled_time]
    if not waiting:
        return None
    if schedule.catch_up_policy == _ALL:
        return await make_wait(deps, found, draft)
    if schedule.overlap_policy == _QUEUE:
        raise tick_skipped(waiting[0].scheduled_time)
    for tick in waiting:
        await _supersede(deps, found, tick, draft.scheduled_time)
    return None


async def cancel_previous(deps: Dependencies, found: Admission) -> bool:
    """Cancel the active run for a tick, where the policy says so."""
    if found.instance.schedule.overlap_policy != _CANCEL:
        return False
    tenant_id, instance_id, flow_kind = _key(found)
    message = "the schedule's next run starts"
    async with deps.database.transaction(tenant_id) as connection:
        active = await run_store.get_active_run(connection, tenant_id, instance_id, flow_kind)
        records = await change_runs(
            deps,
            connection,
            tenant_id,
            [active.run.run_id] if active is not None else [],
            RunEvent.CANCELLED,
            actor=ACTOR,
            message=message,
            values={"error": error_json("CANCELLED", message)},
        )
    announce(deps, tenant_id, records)
    return True


async def submit_waiting(deps: Dependencies, flow: FlowKey) -> None:
    """Start what a flow's ticks have waited for, as far as its turn has come.

    Raises:
        UnavailableError: Admission could not be decided; try again.
    """
    tenant_id, instance_id, flow_kind = flow
    request = RequestContext(tenant_id, ACTOR, deps.ids(), context.new_traceparent(), is_service=True)
    with context.bind(request):
        async with deps.database.read(tenant_id) as connection:
            waiting = await store.list_ticks(connection, flow)
        try:
            found = await find_flow(deps, tenant_id, instance_id, enum_number(FlowKind, flow_kind))
        except NotFoundError as error:
            _log.info("ticks dropped", flow=flow, error=repr(error))
            async with deps.database.transaction(tenant_id) as connection:
                for tick in waiting:
                    await store.delete_tick(connection, flow, tick.scheduled_time)
            return
        schedule = found.instance.schedule
        if schedule.catch_up_policy != _ALL:
            for tick in waiting[:-1]:
                await _supersede(deps, found, tick, waiting[-1].scheduled_time)
            waiting = waiting[-1:]
        for tick in waiting[:1]:
            await _submit(deps, found, _draft(found, tick))
        if len(waiting) > 1:
            await _postpone(deps, flow)


async def _submit(deps: Dependencies, found: Admission, draft: Draft) -> None:
    assert draft.scheduled_time is not None
    try:
        check_not_paused(found)
        try:
            await _insert(deps, found, draft, draft.scheduled_time)
        except AlreadyExistsError:
            if not await cancel_previous(deps, found):
                raise
            await _insert(deps, found, draft, draft.scheduled_time)
    except AlreadyExistsError as active:
        schedule = found.instance.schedule
        if schedule.overlap_policy == _QUEUE or schedule.catch_up_policy == _ALL:
            await _postpone(deps, _key(found))
        else:
            await _refuse(deps, found, draft, active)
    except FailedPreconditionError as error:
        await _refuse(deps, found, draft, error)


async def _insert(deps: Dependencies, found: Admission, draft: Draft, scheduled_time: datetime) -> None:
    admission = await ask(deps, found, must_compare=True)
    draft.check(admission)
    async with deps.database.transaction(found.tenant_id) as connection:
        if not await store.delete_tick(connection, _key(found), scheduled_time):
            return
        # Another flow run than the tick's own, which has ended, will start it.
        await insert_run(deps, connection, admission, replace(draft, orchestrator_run_id=""))
    deps.wake_dispatcher()


async def _refuse(deps: Dependencies, found: Admission, draft: Draft, refusal: DomainError) -> None:
    assert draft.scheduled_time is not None
    async with deps.database.transaction(found.tenant_id) as connection:
        if await store.delete_tick(connection, _key(found), draft.scheduled_time):
            await insert_refused(deps, connection, found, draft, refusal)


async def _supersede(deps: Dependencies, found: Admission, tick: Tick, latest: datetime) -> None:
    await _refuse(deps, found, _draft(found, tick), tick_superseded(latest))


async def _postpone(deps: Dependencies, flow: FlowKey) -> None:
    due_time = deps.clock.now() + timedelta(seconds=deps.settings.tick_interval_seconds)
    async with deps.database.transaction(flow[0]) as connection:
        await store.postpone(connection, flow, due_time)


def _draft(found: Admission, tick: Tick) -> Draft:
    return Draft(
        instance_id=found.instance.instance_id,
        flow_kind=found.flow.flow_kind,
        trigger=run_pb2.RUN_TRIGGER_SCHEDULE,
        actor=ACTOR,
        orchestrator_run_id=tick.orchestrator_run_id,
        scheduled_time=tick.scheduled_time,
    )


def _key(found: Admission) -> FlowKey:
    return (found.tenant_id, found.instance.instance_id, found.flow_kind)
