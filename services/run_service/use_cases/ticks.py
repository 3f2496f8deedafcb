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
from run_service.use_cases.admission import FoundFlow, WantedRun, admit, find_flow
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.submission import insert_refused, insert_run
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


def check_not_paused(found: FoundFlow) -> None:
    """Refuse a tick of a paused instance.

    Raises:
        FailedPreconditionError: INSTANCE_PAUSED.
    """
    if found.instance.state == instance_pb2.INSTANCE_STATE_PAUSED:
        raise instance_paused(found.instance.name)


def check_in_time(deps: Dependencies, found: FoundFlow, wanted: WantedRun) -> None:
    """Refuse a late tick where the policy catches up with none.

    Raises:
        FailedPreconditionError: TICK_MISSED.
    """
    if found.instance.schedule.catch_up_policy == _NONE and is_late(deps, wanted):
        raise tick_too_late(deps.settings.tick_grace_seconds)


def is_late(deps: Dependencies, wanted: WantedRun) -> bool:
    """Return whether a tick comes so late that others may have passed, too."""
    assert wanted.scheduled_time is not None
    return deps.clock.now() - wanted.scheduled_time > timedelta(seconds=deps.settings.tick_grace_seconds)


async def make_wait(
    deps: Dependencies, found: FoundFlow, wanted: WantedRun, *, is_overlap: bool = False
) -> run_pb2.Run | None:
    """Keep a tick for later; return what its flow run is told, None where the policy lets nothing wait.

    Late ticks wait a moment for each other: only then is known which is the latest.
    """
    assert wanted.scheduled_time is not None
    settings, flow = deps.settings, found.key
    tick = Tick(wanted.scheduled_time, wanted.orchestrator_run_id)
    async with deps.database.transaction(found.tenant_id) as connection:
        waiting = {each.scheduled_time for each in await store.list_ticks(connection, flow)}
        if tick.scheduled_time not in waiting:
            if is_overlap and (waiting or found.instance.schedule.overlap_policy != _QUEUE):
                return None
            seconds = settings.tick_interval_seconds if is_overlap else settings.tick_settle_seconds
            await store.insert_tick(connection, flow, tick, deps.clock.now() + timedelta(seconds=seconds))
    run = run_pb2.Run(instance_id=wanted.instance_id, status=run_pb2.RUN_STATUS_PENDING)
    run.error.type, run.error.message = (
        "TICK_WAITING",
        "the tick's run is dispatched anew when its turn comes",
    )
    return run


async def give_way(deps: Dependencies, found: FoundFlow, wanted: WantedRun) -> run_pb2.Run | None:
    """Settle a punctual tick with those that wait; return what its flow run is told where it waits behind them.

    Raises:
        FailedPreconditionError: One waits already, and no more may.
    """
    assert wanted.scheduled_time is not None
    flow, schedule = found.key, found.instance.schedule
    async with deps.database.read(found.tenant_id) as connection:
        listed = await store.list_ticks(connection, flow)
    waiting = [tick for tick in listed if tick.scheduled_time != wanted.scheduled_time]
    if not waiting:
        return None
    if schedule.catch_up_policy == _ALL:
        return await make_wait(deps, found, wanted)
    if schedule.overlap_policy == _QUEUE:
        raise tick_skipped(waiting[0].scheduled_time)
    for tick in waiting:
        await _supersede(deps, found, tick, wanted.scheduled_time)
    return None


async def cancel_previous(deps: Dependencies, found: FoundFlow) -> bool:
    """Cancel the active run for a tick, where the policy says so."""
    if found.instance.schedule.overlap_policy != _CANCEL:
        return False
    tenant_id, instance_id, flow_kind = found.key
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
            await _submit(deps, found, _wanted_by(found, tick))
        if len(waiting) > 1:
            await _postpone(deps, flow)


async def _submit(deps: Dependencies, found: FoundFlow, wanted: WantedRun) -> None:
    assert wanted.scheduled_time is not None
    try:
        check_not_paused(found)
        try:
            await _insert(deps, found, wanted, wanted.scheduled_time)
        except AlreadyExistsError:
            if not await cancel_previous(deps, found):
                raise
            await _insert(deps, found, wanted, wanted.scheduled_time)
    except AlreadyExistsError as active:
        schedule = found.instance.schedule
        if schedule.overlap_policy == _QUEUE or schedule.catch_up_policy == _ALL:
            await _postpone(deps, found.key)
        else:
            await _refuse(deps, found, wanted, active)
    except FailedPreconditionError as error:
        await _refuse(deps, found, wanted, error)


async def _insert(deps: Dependencies, found: FoundFlow, wanted: WantedRun, scheduled_time: datetime) -> None:
    # Another flow run than the tick's own, which has ended, will start it.
    admission = await admit(deps, found, replace(wanted, orchestrator_run_id=""), must_compare=True)
    async with deps.database.transaction(found.tenant_id) as connection:
        if not await store.delete_tick(connection, found.key, scheduled_time):
            return
        await insert_run(deps, connection, admission)
    deps.wake_dispatcher()


async def _refuse(deps: Dependencies, found: FoundFlow, wanted: WantedRun, refusal: DomainError) -> None:
    assert wanted.scheduled_time is not None
    async with deps.database.transaction(found.tenant_id) as connection:
        if await store.delete_tick(connection, found.key, wanted.scheduled_time):
            await insert_refused(deps, connection, found, wanted, refusal)


async def _supersede(deps: Dependencies, found: FoundFlow, tick: Tick, latest: datetime) -> None:
    await _refuse(deps, found, _wanted_by(found, tick), tick_superseded(latest))


async def _postpone(deps: Dependencies, flow: FlowKey) -> None:
    due_time = deps.clock.now() + timedelta(seconds=deps.settings.tick_interval_seconds)
    async with deps.database.transaction(flow[0]) as connection:
        await store.postpone(connection, flow, due_time)


def _wanted_by(found: FoundFlow, tick: Tick) -> WantedRun:
    return WantedRun(
        instance_id=found.instance.instance_id,
        flow_kind=found.flow.flow_kind,
        trigger=run_pb2.RUN_TRIGGER_SCHEDULE,
        actor=ACTOR,
        orchestrator_run_id=tick.orchestrator_run_id,
        scheduled_time=tick.scheduled_time,
    )
