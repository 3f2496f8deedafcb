"""Submit new runs, and record the refused runs of schedules and retries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.admission import check_allow_deletion, check_force
from run_service.domain.errors import (
    instance_deleting,
    run_active,
    runs_come_too_fast,
)
from run_service.domain.pairing import FlowRunState
from run_service.domain.parameters import check_parameters
from run_service.events import activity_row, run_event
from run_service.store import auto_refreshes, ticks
from run_service.store import runs as run_store
from run_service.store.endings import insert_endings
from run_service.store.records import time_of
from run_service.store.submission import (
    Submission,
    insert_submission,
    is_flow_deleted,
    write_submission,
)
from run_service.use_cases.admission import (
    Admission,
    FoundFlow,
    WantedRun,
    admit,
    find_flow,
    has_versions,
)
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.ending import make_ending
from servicekit import audit, idempotency
from servicekit.context import RequestContext
from servicekit.database import Connection, ConstraintError
from servicekit.enums import enum_number
from servicekit.errors import DomainError

_ATTEMPTS = 3  # the first one may trust lineage-service without a comparison


async def submit_run(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.SubmitRunRequest
) -> run_pb2.Run:
    """Admit and record a run; the dispatcher then creates its flow run."""
    wanted = wanted_run(context.actor, request)
    if request.validate_only:
        return await _validate(deps, context.tenant_id, wanted)
    return await submit_once(deps, context.tenant_id, wanted, "SubmitRun", request, request.request_id)


def wanted_run(actor: str, request: run_service_pb2.SubmitRunRequest) -> WantedRun:
    """Return the run that a client asks for.

    Raises:
        InvalidArgumentError: FORCE_REASON_REQUIRED, ALLOW_DELETION_REASON_REQUIRED.
    """
    check_force(request.force_reason, force=request.force)
    check_allow_deletion(request.allow_deletion_reason, allow_deletion=request.allow_deletion)
    return WantedRun(
        instance_id=request.instance_id,
        flow_kind=request.flow_kind,
        trigger=run_pb2.RUN_TRIGGER_MANUAL,
        actor=actor,
        mode=request.mode or run_pb2.RUN_MODE_INCREMENTAL,
        parameters=request.parameters,
        force=request.force,
        force_reason=request.force_reason,
        allow_deletion=request.allow_deletion,
        allow_deletion_reason=request.allow_deletion_reason,
    )


async def _validate(deps: Dependencies, tenant_id: str, wanted: WantedRun) -> run_pb2.Run:
    """Check everything and record nothing; the answer has neither id nor number."""
    found = await _find(deps, tenant_id, wanted)
    admission = await admit(deps, found, wanted, must_compare=True)
    async with deps.database.read(tenant_id) as connection:
        await refuse_second(connection, found)
        await deps.room.check(connection, tenant_id)
    return admitted_run(admission, "", 0, deps.clock.now())


async def submit_once(
    deps: Dependencies, tenant_id: str, wanted: WantedRun, method: str, request: Message, request_id: str
) -> run_pb2.Run:
    """Submit a run once; answer a repeated request as the first time, even if it would be refused by now."""
    payload_hash = idempotency.payload_hash(request)
    try:
        found = await _find(deps, tenant_id, wanted)
        for attempt in range(_ATTEMPTS):
            admission = await admit(deps, found, wanted, must_compare=attempt > 0)
            if wanted.run_number not in (0, admission.run_number):
                raise overtaken(found)
            submission = replace(
                submission_of(deps, admission),
                method=method,
                request_id=request_id,
                payload_hash=payload_hash,
            )
            if await _write(deps, tenant_id, submission):
                deps.wake_dispatcher()
                return submission.run
            stored = await idempotency.first_answer(
                deps.database, tenant_id, method, request_id, payload_hash
            )
            if stored is not None:
                return run_pb2.Run.FromString(stored)
            async with deps.database.read(tenant_id) as connection:
                await refuse_second(connection, found)
        raise overtaken(found)
    except DomainError:
        stored = await idempotency.first_answer(deps.database, tenant_id, method, request_id, payload_hash)
        if stored is None:
            raise
        return run_pb2.Run.FromString(stored)


async def _write(deps: Dependencies, tenant_id: str, submission: Submission) -> bool:
    """Insert a run; return False if its number is taken, the flow takes none now, or the request was answered before."""
    if await deps.room.is_ample(tenant_id):
        return await write_submission(deps.database, tenant_id, submission)
    try:
        async with deps.room.transaction(tenant_id) as connection:
            return await insert_submission(connection, tenant_id, submission)
    except ConstraintError:  # its request id
        return False


async def _find(deps: Dependencies, tenant_id: str, wanted: WantedRun) -> FoundFlow:
    found = await find_flow(deps, tenant_id, wanted.instance_id, wanted.flow_kind)
    check_wanted(found, wanted)
    return found


def check_wanted(found: FoundFlow, wanted: WantedRun) -> None:
    """Refuse parameters that the flow does not have, or that are malformed.

    Raises:
        InvalidArgumentError: INVALID_ARGUMENT, with a violation for each parameter.
    """
    is_full = wanted.mode == run_pb2.RUN_MODE_FULL
    check_parameters(found.flow_kind, dict(wanted.parameters), is_full=is_full)


async def insert_run(deps: Dependencies, connection: Connection, admission: Admission) -> run_pb2.Run:
    """Insert an admitted run with its number, event, timeline entry and dispatch, in a transaction of `deps.room`.

    Raises:
        AlreadyExistsError: RUN_ACTIVE.
        FailedPreconditionError: INSTANCE_DELETING.
        UnavailableError: The flow has had another run since the admission; try again.
    """
    submission, found = submission_of(deps, admission), admission.found
    if not await insert_submission(connection, found.tenant_id, submission):
        await refuse_second(connection, found)
        raise overtaken(found)
    return submission.run


def submission_of(deps: Dependencies, admission: Admission) -> Submission:
    """Return an admitted run with all rows that are inserted with it."""
    now = deps.clock.now()
    run = admitted_run(admission, deps.ids(), admission.run_number, now)
    action = "observe" if admission.wanted.orchestrator_run_id else "create"
    return make_submission(deps, admission.found, run, "submitted", action, now, "")


async def insert_refused(
    deps: Dependencies, connection: Connection, found: FoundFlow, wanted: WantedRun, refusal: DomainError
) -> run_pb2.Run | None:
    """Record a refused run of a schedule or a retry, for which no client waits; return None if it is recorded already.

    It has run number 0, because it is not one of the flow's runs; it changes nothing in lineage-service.
    """
    now = deps.clock.now()
    run = _new_run(found, wanted, deps.ids(), 0, now)
    run.status = run_pb2.RUN_STATUS_CANCELLED
    run.end_time.CopyFrom(run.submit_time)
    run.error.type, run.error.message = refusal.reason, refusal.message
    submission = make_submission(deps, found, run, "cancelled", None, now, refusal.message)
    if not await insert_submission(connection, found.tenant_id, submission):
        return None
    await ticks.wake_waiting(connection, found.tenant_id, [run.instance_id], now)
    await auto_refreshes.wake(connection, found.tenant_id, [(run.instance_id, found.flow_kind)], now)
    if wanted.orchestrator_run_id:
        ending = make_ending(
            deps,
            found.tenant_id,
            wanted.orchestrator_run_id,
            FlowRunState.CANCELLED,
            f"{refusal.reason}: {refusal.message}",
            instance_id=run.instance_id,
            run_id=run.run_id,
            manner="ends_itself",
        )
        await insert_endings(connection, [ending])
    return run


async def refuse_second(connection: Connection, found: FoundFlow) -> None:
    """Refuse the run if the flow is deleted or has an active run."""
    if await is_flow_deleted(connection, *found.key):
        raise instance_deleting(found.instance.instance_id)
    active = await run_store.get_active_run(connection, *found.key)
    if active is not None:
        raise run_active(active.run.run_id, active.run.run_number)


def overtaken(found: FoundFlow) -> DomainError:
    """Return the refusal of a run whose number another run of the flow has taken."""
    return runs_come_too_fast(found.instance.name, found.flow_kind)


def make_submission(
    deps: Dependencies,
    found: FoundFlow,
    run: run_pb2.Run,
    happening: str,
    dispatch_action: str | None,
    now: datetime,
    message: str,
) -> Submission:
    """Return a new run with all rows that are inserted with it, and have the audit record of the call name it."""
    audit.note(f"runs/{run.run_id}", after=1, reason=run.force_reason)
    details: dict[str, Any] | None = {"type": run.error.type} if run.HasField("error") else None
    if run.forced:
        details = {**(details or {}), "forced": True, "force_reason": run.force_reason}
    if run.allow_deletion:
        allowed = {"allow_deletion": True, "allow_deletion_reason": run.allow_deletion_reason}
        details = {**(details or {}), **allowed}
    return Submission(
        run=run,
        instance_name=found.instance.name,
        retry_policy=found.retry_policy,
        event=run_event(happening, found.tenant_id, run, deps.ids(), deps.clock),
        activity=activity_row(
            happening,
            found.tenant_id,
            run.run_id,
            found.kind,
            activity_id=deps.ids(),
            actor=run.actor,
            now=now,
            message=message,
            details=details,
        ),
        dispatch_action=dispatch_action,
        submit_time=now,
    )


def admitted_run(admission: Admission, run_id: str, number: int, now: datetime) -> run_pb2.Run:
    """Return the new run with the inputs that it will read."""
    run = _new_run(admission.found, admission.wanted, run_id, number, now)
    run.input_versions.extend(admission.answer.input_versions)
    run.input_versions.extend(_pin_settings(admission.found))
    run.late_inputs.extend(admission.answer.late_inputs)
    run.lineage_revision = admission.answer.lineage_revision
    run.allows_incremental = admission.answer.allows_incremental
    run.full_because = admission.answer.full_because
    if admission.answer.HasField("base_version"):
        run.base_version.CopyFrom(admission.answer.base_version)
        if (newest := admission.newest_completed) is not None:
            run.base_version.instance_revision = newest.instance_revision
            run.base_version.is_partial_range = newest.is_partial_range
            run.base_version.code_hash = newest.code_hash
    return run


def _pin_settings(found: FoundFlow) -> Iterator[flow_pb2.InputVersion]:
    """Yield the upstreams of which no version is read, at the revisions that the flow's fingerprint covers."""
    names = {ref.resource_id: ref.name for ref in found.instance.upstream_refs}
    for edge in found.flow.upstreams:
        if not has_versions(edge):
            yield flow_pb2.InputVersion(
                role=edge.role,
                instance_id=edge.upstream.instance_id,
                flow_kind=edge.upstream.flow_kind,
                instance_name=names.get(edge.upstream.instance_id, ""),
                instance_revision=edge.upstream_revision,
            )


def _new_run(found: FoundFlow, wanted: WantedRun, run_id: str, number: int, now: datetime) -> run_pb2.Run:
    run = run_pb2.Run(
        run_id=run_id,
        instance_id=found.instance.instance_id,
        instance_revision=found.instance.revision,
        flow_kind=found.flow.flow_kind,
        run_number=number,
        status=run_pb2.RUN_STATUS_PENDING,
        trigger=wanted.trigger,
        mode=wanted.mode,
        attempt=wanted.attempt,
        orchestrator_run_id=wanted.orchestrator_run_id,
        submit_time=time_of(now),
        forced=wanted.force,
        force_reason=wanted.force_reason,
        retry_of_run_id=wanted.retry_of_run_id,
        actor=wanted.actor,
        compute_fingerprint=found.flow.compute_fingerprint,
        is_partial_range=wanted.is_partial_range,
        allow_deletion=wanted.allow_deletion,
        allow_deletion_reason=wanted.allow_deletion_reason,
        refresh_id=wanted.refresh_id,
    )
    run.kind = enum_number(run_pb2.RunKind, found.kind)
    if wanted.parameters.fields:
        run.parameters.CopyFrom(wanted.parameters)
    if wanted.scheduled_time is not None:
        run.scheduled_time.CopyFrom(time_of(wanted.scheduled_time))
    return run
