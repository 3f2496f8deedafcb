"""Apply the policies of schedules to their scheduled times ("ticks"); docs/schedules.md has the rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.instance.v1 import instance_pb2, schedule_pb2
from optaic.rules.scheduled_times import has_tick
from optaic.run.v1 import run_pb2
from run_service.domain.errors import (
    NoRoomError,
    instance_paused,
    invalid_fields,
    tick_skipped,
    tick_superseded,
    tick_too_late,
    tick_unknown,
    upstream_wait_expired,
)
from run_service.domain.policies import Action, CatchUp, Overlap, Policies, Situation, decide
from run_service.domain.statuses import RunEvent
from run_service.store import runs as run_store
from run_service.store import ticks as store
from run_service.store.records import datetime_of
from run_service.store.ticks import FlowKey, Tick
from run_service.use_cases.admission import FoundFlow, WantedRun, admit, find_flow
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.submission import insert_refused, insert_run
from run_service.use_cases.transitions import announce, change_runs, error_json
from run_service.use_cases.upstream_refreshes import begin_refresh, explained
from run_service.use_cases.upstream_waits import (
    MustWaitError,
    await_refresh,
    max_wait_of,
    publish_end_of_wait,
    publish_wait,
    rule_of,
)
from servicekit import context
from servicekit.access import SERVICE_ROLES
from servicekit.context import RequestContext
from servicekit.enums import enum_number
from servicekit.errors import (
    AlreadyExistsError,
    DomainError,
    FailedPreconditionError,
    FieldViolation,
    NotFoundError,
    ResourceExhaustedError,
)

ACTOR = "schedule"
_OVERLAPS = {
    schedule_pb2.OVERLAP_POLICY_SKIP: Overlap.SKIP,
    schedule_pb2.OVERLAP_POLICY_QUEUE_ONE: Overlap.QUEUE_ONE,
    schedule_pb2.OVERLAP_POLICY_CANCEL_PREVIOUS: Overlap.CANCEL_PREVIOUS,
}
_CATCH_UPS = {
    schedule_pb2.CATCH_UP_POLICY_LATEST: CatchUp.LATEST,
    schedule_pb2.CATCH_UP_POLICY_ALL: CatchUp.ALL,
    schedule_pb2.CATCH_UP_POLICY_NONE: CatchUp.NONE,
}
_log = structlog.get_logger(__name__)


def policies_of(found: FoundFlow) -> Policies:
    """Return the policies of the instance's schedule; an unset policy is the default."""
    schedule, default = found.instance.schedule, Policies()
    return Policies(
        _OVERLAPS.get(schedule.overlap_policy, default.overlap),
        _CATCH_UPS.get(schedule.catch_up_policy, default.catch_up),
    )


def read_time(stamp: Timestamp) -> datetime:
    """Return a scheduled time.

    Raises:
        InvalidArgumentError: It is no time of the years 1 to 9999.
    """
    try:
        return datetime_of(stamp)
    except (ValueError, OverflowError):
        text = "is not a time of the years 1 to 9999; send the scheduled time of the flow run"
        raise invalid_fields([FieldViolation("scheduled.scheduled_time", text)]) from None


def check_scheduled(deps: Dependencies, found: FoundFlow, wanted: WantedRun) -> None:
    """Refuse a time that is not one of the instance's schedule, or that is too far from now.

    Raises:
        FailedPreconditionError: TICK_UNKNOWN.
    """
    assert wanted.scheduled_time is not None
    settings, age = deps.settings, (deps.clock.now() - wanted.scheduled_time).total_seconds()
    if age < -settings.tick_early_seconds:
        raise tick_unknown(f"is {-age:.0f} seconds ahead; the flow run may start when the time has come")
    if age > settings.tick_late_seconds:
        raise tick_unknown(
            "is longer ago than OPTAIC_TICK_LATE_SECONDS; start the flow with `optaic run submit`"
        )
    if not has_tick(found.instance.schedule, wanted.scheduled_time):
        raise tick_unknown("is not one of the instance's schedule; start the flow with `optaic run submit`")


def check_not_paused(found: FoundFlow) -> None:
    """Refuse a tick of a paused instance.

    Raises:
        FailedPreconditionError: INSTANCE_PAUSED.
    """
    if found.instance.state == instance_pb2.INSTANCE_STATE_PAUSED:
        raise instance_paused(found.instance.name)


async def meet_waiting(deps: Dependencies, found: FoundFlow, wanted: WantedRun) -> bool:
    """Decide about a scheduled time whose flow run starts late or while others wait; return whether it waits.

    Raises:
        FailedPreconditionError: TICK_MISSED, TICK_SKIPPED, TICK_SUPERSEDED.
    """
    assert wanted.scheduled_time is not None
    settings = deps.settings
    async with deps.database.read(found.tenant_id) as connection:
        listed = await store.list_ticks(connection, found.key)
    awaiting = _awaiting(listed)
    if awaiting is not None and awaiting.scheduled_time == wanted.scheduled_time:
        return True
    others = [tick for tick in listed if tick.scheduled_time != wanted.scheduled_time]
    situation = _situation(deps, wanted.scheduled_time, others)
    if situation is None:
        return False
    match decide(situation, policies_of(found)):
        case Action.REFUSE_MISSED:
            raise tick_too_late(settings.tick_grace_seconds)
        case Action.REFUSE_SKIPPED:
            raise tick_skipped(others[0].scheduled_time)
        case Action.REFUSE_SUPERSEDED:
            raise tick_superseded((awaiting or others[0]).scheduled_time)
        case Action.RUN_AND_SUPERSEDE:
            for tick in others:
                await _supersede(deps, found, tick, wanted.scheduled_time)
            return False
        case Action.WAIT:
            # Late ticks wait for each other, so that the latest is known.
            due_time = deps.clock.now() + timedelta(seconds=settings.tick_settle_seconds)
            async with deps.database.transaction(found.tenant_id) as connection:
                await store.insert_tick(connection, found.key, _tick_of(wanted), due_time)
            return True
        case action:
            raise AssertionError(action)


async def meet_active_run(
    deps: Dependencies, found: FoundFlow, wanted: WantedRun, active: AlreadyExistsError
) -> bool:
    """Decide about a scheduled time whose flow run starts while a run is active; return whether it waits.

    If it does not wait, the active run has been cancelled for it.

    Raises:
        AlreadyExistsError: RUN_ACTIVE: the tick is not run.
        FailedPreconditionError: TICK_SKIPPED.
    """
    policies = policies_of(found)
    action = decide(Situation.RUN_IS_ACTIVE, policies)
    async with deps.database.transaction(found.tenant_id) as connection:
        waiting = await store.list_ticks(connection, found.key)
        if wanted.scheduled_time in {tick.scheduled_time for tick in waiting}:
            return True
        if action is Action.WAIT and waiting:  # another one has begun to wait since the first look
            action = decide(Situation.OTHERS_WAIT, policies)
        if action is Action.WAIT:
            due_time = deps.clock.now() + timedelta(seconds=deps.settings.tick_interval_seconds)
            await store.insert_tick(connection, found.key, _tick_of(wanted), due_time)
            return True
    if action is Action.REFUSE_SKIPPED:
        raise tick_skipped(waiting[0].scheduled_time)
    if action is Action.RUN_AND_CANCEL:
        await _cancel_active(deps, found)
        return False
    raise active


def _situation(deps: Dependencies, scheduled_time: datetime, others: Sequence[Tick]) -> Situation | None:
    """Return the situation of a scheduled time whose flow run starts; None if it starts in time and none waits."""
    if _awaiting(others) is not None:
        return Situation.UPSTREAMS_AWAITED
    if deps.clock.now() - scheduled_time > timedelta(seconds=deps.settings.tick_grace_seconds):
        return Situation.LATE
    return Situation.OTHERS_WAIT if others else None


def _awaiting(ticks: Iterable[Tick]) -> Tick | None:
    """Return the scheduled time that waits for upstream flows, if there is one."""
    return next((tick for tick in ticks if tick.wait_start_time is not None), None)


async def meet_upstreams(
    deps: Dependencies, found: FoundFlow, wanted: WantedRun, wait: MustWaitError
) -> None:
    """Have a scheduled time wait whose upstream flows have work to do."""
    now = deps.clock.now()
    # Looked at again soon: what it waits for may have ended while this was decided.
    due_time = now + timedelta(seconds=deps.settings.tick_interval_seconds)
    tick = replace(_tick_of(wanted), wait_start_time=now)
    async with deps.database.transaction(found.tenant_id) as connection:
        await store.insert_tick(connection, found.key, tick, due_time, wait.instance_ids)
        await publish_wait(deps, connection, found, tick, wait)


def waiting_answer(wanted: WantedRun) -> run_pb2.Run:
    """Return the answer to the flow run of a tick that waits."""
    run = run_pb2.Run(instance_id=wanted.instance_id, status=run_pb2.RUN_STATUS_PENDING)
    run.error.type = "TICK_WAITING"
    run.error.message = "the scheduled time waits; another flow run executes it when its turn comes"
    return run


async def _cancel_active(deps: Dependencies, found: FoundFlow) -> None:
    """Cancel the active run, no matter who started it."""
    tenant_id = found.tenant_id
    message = "the next scheduled run replaces this one (overlap_policy CANCEL_PREVIOUS)"
    async with deps.database.transaction(tenant_id) as connection:
        active = await run_store.get_active_run(connection, *found.key)
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


async def submit_waiting(deps: Dependencies, flow: FlowKey) -> None:
    """Submit the waiting tick of a flow whose turn has come.

    Raises:
        UnavailableError: Admission is undecided; try again.
    """
    tenant_id, instance_id, flow_kind = flow
    request = RequestContext(tenant_id, ACTOR, deps.ids(), context.new_traceparent(), SERVICE_ROLES)
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
        policies = policies_of(found)
        supersedes = decide(Situation.LATER_ONES_WAIT, policies) is Action.REFUSE_SUPERSEDED
        if waiting and supersedes:
            waiting = [await _keep_one(deps, found, waiting)]
        is_awaiting = False
        for tick in waiting[:1]:
            try:
                await _submit(deps, found, _wanted_by(found, tick), policies)
            except MustWaitError as wait:
                is_awaiting = await _keep_waiting(deps, found, tick, wait)
        if len(waiting) > 1 and not is_awaiting:
            await _postpone(deps, flow)


async def _keep_one(deps: Dependencies, found: FoundFlow, waiting: Sequence[Tick]) -> Tick:
    """Supersede all waiting ticks but the latest; one that waits for upstream flows stays, so that its wait ends."""
    kept = _awaiting(waiting) or waiting[-1]
    for tick in waiting:
        if tick is not kept:
            await _supersede(deps, found, tick, kept.scheduled_time)
    return kept


async def _keep_waiting(deps: Dependencies, found: FoundFlow, tick: Tick, wait: MustWaitError) -> bool:
    """Have a scheduled time wait for its upstream flows, unless it has waited for too long; return whether it waits."""
    now, max_wait = deps.clock.now(), max_wait_of(found)
    expire_time = (tick.wait_start_time or now) + max_wait
    if now >= expire_time:
        wait = await explained(deps, found, wait)
        await _refuse(deps, found, _wanted_by(found, tick), upstream_wait_expired(max_wait, wait.waits_for))
        return False
    try:
        has_begun = await begin_refresh(deps, found, tick, wait.verdict, ACTOR)
    except ResourceExhaustedError as error:
        if error.reason == "TOO_MANY_FLOWS":
            await _refuse(deps, found, _wanted_by(found, tick), error)
            return False
        has_begun, wait = False, wait.without_room()
    soon = now + timedelta(seconds=deps.settings.tick_interval_seconds)
    due_time = min(soon if has_begun else wait.look_time, expire_time)
    async with deps.database.transaction(found.tenant_id) as connection:
        await store.keep_waiting(connection, found.key, wait.instance_ids, now, due_time)
        kept = replace(tick, wait_start_time=tick.wait_start_time or now)
        await publish_wait(deps, connection, found, kept, wait)
    return True


async def _submit(deps: Dependencies, found: FoundFlow, wanted: WantedRun, policies: Policies) -> None:
    """Submit a waiting tick, or record why it is not run.

    Raises:
        MustWaitError: Its upstream flows have work to do.
    """
    assert wanted.scheduled_time is not None
    try:
        check_not_paused(found)
        await _insert(deps, found, wanted, wanted.scheduled_time)
    except AlreadyExistsError as active:
        match decide(Situation.RUN_IS_ACTIVE_AT_TURN, policies):
            case Action.RUN_AND_CANCEL:
                await _cancel_active(deps, found)
                # One tick cancels one run: a run that has come since then is left alone.
                await _submit(deps, found, wanted, policies._replace(overlap=Overlap.SKIP))
            case Action.WAIT:
                await _postpone(deps, found.key)
            case _:
                await _refuse(deps, found, wanted, active)
    except (FailedPreconditionError, NoRoomError) as error:
        await _refuse(deps, found, wanted, error)


async def _insert(deps: Dependencies, found: FoundFlow, wanted: WantedRun, scheduled_time: datetime) -> None:
    await await_refresh(deps, found, scheduled_time)
    # Another flow run than the tick's own, which has ended, will start it.
    wanted = replace(wanted, orchestrator_run_id="")
    admission = await admit(
        deps, found, wanted, must_compare=True, ignored=rule_of(deps, found, scheduled_time)
    )
    async with deps.room.transaction(found.tenant_id) as connection:
        tick = await store.delete_tick(connection, found.key, scheduled_time)
        if tick is None:
            return
        await insert_run(deps, connection, admission)
        await publish_end_of_wait(deps, connection, found, tick)
    deps.wake_dispatcher()


async def _refuse(deps: Dependencies, found: FoundFlow, wanted: WantedRun, refusal: DomainError) -> None:
    assert wanted.scheduled_time is not None
    async with deps.database.transaction(found.tenant_id) as connection:
        tick = await store.delete_tick(connection, found.key, wanted.scheduled_time)
        if tick is not None:
            await insert_refused(deps, connection, found, wanted, refusal)
            await publish_end_of_wait(deps, connection, found, tick)


async def _supersede(deps: Dependencies, found: FoundFlow, tick: Tick, latest: datetime) -> None:
    await _refuse(deps, found, _wanted_by(found, tick), tick_superseded(latest))


async def _postpone(deps: Dependencies, flow: FlowKey) -> None:
    due_time = deps.clock.now() + timedelta(seconds=deps.settings.tick_interval_seconds)
    async with deps.database.transaction(flow[0]) as connection:
        await store.postpone_ticks(connection, flow, due_time)


def _wanted_by(found: FoundFlow, tick: Tick) -> WantedRun:
    return WantedRun(
        instance_id=found.instance.instance_id,
        flow_kind=found.flow.flow_kind,
        trigger=run_pb2.RUN_TRIGGER_SCHEDULE,
        actor=ACTOR,
        orchestrator_run_id=tick.orchestrator_run_id,
        scheduled_time=tick.scheduled_time,
    )


def _tick_of(wanted: WantedRun) -> Tick:
    assert wanted.scheduled_time is not None
    return Tick(wanted.scheduled_time, wanted.orchestrator_run_id)
