"""Make each flow run that Prefect starts by schedule a run, once, after admission."""

from __future__ import annotations

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.run.v1 import run_pb2, run_report_service_pb2
from run_service.domain.errors import NoRoomError, fenced, flow_run_given_up, run_not_found
from run_service.domain.statuses import ENDED
from run_service.store import endings
from run_service.store import runs as run_store
from run_service.store.records import Record
from run_service.use_cases import reports, ticks
from run_service.use_cases.admission import Admission, FoundFlow, WantedRun, admit, find_flow
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.reports import start_response, take_over
from run_service.use_cases.submission import insert_refused, insert_run
from run_service.use_cases.transitions import announce
from run_service.use_cases.upstream_waits import MustWaitError, rule_of
from servicekit.enums import enum_word
from servicekit.errors import AlreadyExistsError, DomainError, FailedPreconditionError

_Request = run_report_service_pb2.StartRunRequest


class _TooLateError(Exception):
    """The flow run must end: its tick waits for another one, or is recorded as missed."""


async def start_run(
    deps: Dependencies, tenant_id: str, request: run_report_service_pb2.StartRunRequest
) -> run_report_service_pb2.StartRunResponse:
    """Start the run that the request names, or that of the scheduled time that it names."""
    if request.WhichOneof("target") == "scheduled":
        return await _start_scheduled(deps, tenant_id, request)
    return await reports.start_run(deps, tenant_id, request.run_id, request)


async def _start_scheduled(
    deps: Dependencies, tenant_id: str, request: run_report_service_pb2.StartRunRequest
) -> run_report_service_pb2.StartRunResponse:
    """Create and start the run of a scheduled time; if it is refused, the answer has a CANCELLED run.

    Raises:
        InvalidArgumentError: The scheduled time is no time.
        FailedPreconditionError: FENCED: another flow run has this tick, or gets it. TICK_UNKNOWN.
        UnavailableError: Admission is undecided; try again.
    """
    tick = request.scheduled
    wanted = WantedRun(
        instance_id=tick.flow.instance_id,
        flow_kind=tick.flow.flow_kind,
        trigger=run_pb2.RUN_TRIGGER_SCHEDULE,
        actor=ticks.ACTOR,
        orchestrator_run_id=request.orchestrator_run_id,
        scheduled_time=ticks.read_time(tick.scheduled_time),
    )
    adopted = await _find(deps, tenant_id, wanted)
    if adopted is None:
        found = await find_flow(deps, tenant_id, wanted.instance_id, wanted.flow_kind)
        ticks.check_scheduled(deps, found, wanted)
        try:
            decided = await _decide(deps, found, wanted, request)
        except _TooLateError:
            raise flow_run_given_up(wanted.orchestrator_run_id) from None
        if isinstance(decided, run_pb2.Run):
            return run_report_service_pb2.StartRunResponse(run=decided)
        adopted = decided
    if adopted.status in ENDED and not adopted.fencing_token:
        return start_response(deps, tenant_id, adopted)
    return await reports.start_run(deps, tenant_id, adopted.run.run_id, request)


async def _decide(
    deps: Dependencies, found: FoundFlow, wanted: WantedRun, request: _Request
) -> Record | run_pb2.Run:
    """Return the run of the tick, started or refused, or the answer for a tick that waits."""
    try:
        ticks.check_not_paused(found)
        if await ticks.meet_waiting(deps, found, wanted):
            return ticks.waiting_answer(wanted)
        try:
            return await _admit(deps, found, wanted, request)
        except AlreadyExistsError as active:
            if await ticks.meet_active_run(deps, found, wanted, active):
                return ticks.waiting_answer(wanted)
            return await _admit(deps, found, wanted, request)
    except MustWaitError as wait:
        await ticks.meet_upstreams(deps, found, wanted, wait)
        return ticks.waiting_answer(wanted)
    except (FailedPreconditionError, AlreadyExistsError, NoRoomError) as error:
        return await _refuse(deps, found, wanted, error)


async def _admit(deps: Dependencies, found: FoundFlow, wanted: WantedRun, request: _Request) -> Record:
    assert wanted.scheduled_time is not None
    rule = rule_of(deps, found, wanted.scheduled_time)
    return await _adopt(deps, await admit(deps, found, wanted, must_compare=True, ignored=rule), request)


async def _find(deps: Dependencies, tenant_id: str, wanted: WantedRun) -> Record | None:
    """Return the run of this flow run, if it has one."""
    assert wanted.scheduled_time is not None
    async with deps.database.read(tenant_id) as connection:
        adopted = await run_store.get_adopted_run(connection, tenant_id, wanted.orchestrator_run_id)
        if adopted is not None:
            return adopted
        flow_kind = enum_word(FlowKind, wanted.flow_kind)
        taken = await run_store.get_run_of_tick(
            connection, tenant_id, wanted.instance_id, flow_kind, wanted.scheduled_time
        )
    if taken is not None:
        raise fenced(taken.run.run_id)
    return None


async def _adopt(deps: Dependencies, admission: Admission, request: _Request) -> Record:
    tenant_id, flow_run_id = admission.found.tenant_id, admission.wanted.orchestrator_run_id
    async with deps.room.transaction(tenant_id) as connection:
        await endings.lock_flow_run(connection, flow_run_id)
        if await endings.is_ending(connection, tenant_id, flow_run_id):
            raise _TooLateError
        run = await insert_run(deps, connection, admission)
        record = await run_store.lock_run(connection, tenant_id, run.run_id)
        if record is None:
            raise run_not_found(run.run_id)
        started = await take_over(deps, connection, tenant_id, record, request)
    announce(deps, tenant_id, [started])
    return started


async def _refuse(deps: Dependencies, found: FoundFlow, wanted: WantedRun, refusal: DomainError) -> Record:
    """Record why the tick was not run, unless a concurrent repetition of this call has adopted the flow run."""
    async with deps.database.transaction(found.tenant_id) as connection:
        await insert_refused(deps, connection, found, wanted, refusal)
    adopted = await _find(deps, found.tenant_id, wanted)
    if adopted is None:
        raise refusal
    return adopted
