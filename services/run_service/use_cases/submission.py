"""New runs: by request, by retry, and the record of those that were refused while nobody waited."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.admission import check_allow_deletion, check_force
from run_service.domain.errors import (
    instance_deleting,
    run_active,
    run_not_ended,
    run_not_found,
    runs_come_too_fast,
)
from run_service.domain.pairing import FlowRunState
from run_service.domain.parameters import check_parameters, is_partial_range
from run_service.domain.statuses import ENDED
from run_service.events import activity_row, run_event
from run_service.store import Connection
from run_service.store import runs as run_store
from run_service.store.endings import insert_endings
from run_service.store.records import time_of
from run_service.store.submission import (
    Submission,
    insert_submission,
    is_flow_deleted,
    write_submission,
)
from run_service.use_cases.admission import Admission, ask, find_flow
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.ending import make_ending
from servicekit import idempotency
from servicekit.context import RequestContext
from servicekit.enums import enum_number
from servicekit.errors import DomainError

_ATTEMPTS = 3  # the first may rest on what lineage-service says alone


@dataclass(frozen=True)
class Draft:
    """What is asked for, before admission."""

    instance_id: str
    flow_kind: int
    trigger: run_pb2.RunTrigger.ValueType
    actor: str
    mode: run_pb2.RunMode.ValueType = run_pb2.RUN_MODE_INCREMENTAL
    parameters: Struct = field(default_factory=Struct)
    force: bool = False
    force_reason: str = ""
    attempt: int = 1
    retry_of_run_id: str = ""
    orchestrator_run_id: str = ""
    scheduled_time: datetime | None = None
    allow_deletion: bool = False
    allow_deletion_reason: str = ""

    @property
    def is_partial_range(self) -> bool:
        """Whether it leaves dates out."""
        return is_partial_range(self.parameters.fields)

    def check(self, admission: Admission) -> None:
        """Refuse what may not run now, or not so."""
        admission.check(force=self.force, is_partial_range=self.is_partial_range)


async def submit_run(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.SubmitRunRequest
) -> run_pb2.Run:
    """Admit and record a run; the dispatcher does the rest."""
    check_force(request.force_reason, force=request.force)
    check_allow_deletion(request.allow_deletion_reason, allow_deletion=request.allow_deletion)
    draft = Draft(
        instance_id=request.instance_id,
        flow_kind=request.flow_kind,
        trigger=run_pb2.RUN_TRIGGER_MANUAL,
        actor=context.actor,
        mode=request.mode or run_pb2.RUN_MODE_INCREMENTAL,
        parameters=request.parameters,
        force=request.force,
        force_reason=request.force_reason,
        allow_deletion=request.allow_deletion,
        allow_deletion_reason=request.allow_deletion_reason,
    )
    if request.validate_only:
        return await _validate(deps, context.tenant_id, draft)
    return await _submit_once(deps, context.tenant_id, draft, "SubmitRun", request, request.request_id)


async def retry_run(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.RetryRunRequest
) -> run_pb2.Run:
    """Submit an ended run's flow again; a retry that was waiting for its time is replaced by this one."""
    check_force(request.force_reason, force=request.force)
    _, draft = await draft_of_retry(deps, context.tenant_id, request.run_id, context.actor)
    draft = replace(draft, force=request.force, force_reason=request.force_reason)
    return await _submit_once(deps, context.tenant_id, draft, "RetryRun", request, request.request_id)


async def draft_of_retry(deps: Dependencies, tenant_id: str, run_id: str, actor: str) -> tuple[int, Draft]:
    """Return the number of an ended run, and the run that follows it.

    Raises:
        NotFoundError: RUN_NOT_FOUND.
        FailedPreconditionError: RUN_NOT_ENDED.
    """
    async with deps.database.read(tenant_id) as connection:
        record = await run_store.get_run(connection, tenant_id, run_id)
    if record is None:
        raise run_not_found(run_id)
    if record.status not in ENDED:
        raise run_not_ended(run_id)
    draft = Draft(
        instance_id=record.run.instance_id,
        flow_kind=record.run.flow_kind,
        trigger=run_pb2.RUN_TRIGGER_RETRY,
        actor=actor,
        mode=record.run.mode,
        parameters=record.run.parameters,
        attempt=record.run.attempt + 1,
        retry_of_run_id=run_id,
    )
    return record.run.run_number, draft


async def _validate(deps: Dependencies, tenant_id: str, draft: Draft) -> run_pb2.Run:
    """Check everything, record nothing; the answer has neither id nor number."""
    admission = await ask(deps, await _find(deps, tenant_id, draft), must_compare=True)
    draft.check(admission)
    async with deps.database.read(tenant_id) as connection:
        await _refuse_second(connection, admission)
    return _new_run(admission, draft, "", 0, deps.clock.now())


async def _submit_once(
    deps: Dependencies, tenant_id: str, draft: Draft, method: str, request: Message, request_id: str
) -> run_pb2.Run:
    """Submit, or give the first answer to a repeated request, also where it would be refused by now."""
    payload_hash = idempotency.payload_hash(request)
    try:
        found = await _find(deps, tenant_id, draft)
        for attempt in range(_ATTEMPTS):
            admission = await ask(deps, found, must_compare=attempt > 0)
            draft.check(admission)
            submission = replace(
                _admitted(deps, admission, draft),
                method=method,
                request_id=request_id,
                payload_hash=payload_hash,
            )
            if await write_submission(deps.database, tenant_id, submission):
                deps.wake_dispatcher()
                return submission.run
            stored = await idempotency.first_answer(
                deps.database, tenant_id, method, request_id, payload_hash
            )
            if stored is not None:
                return run_pb2.Run.FromString(stored)
            async with deps.database.read(tenant_id) as connection:
                await _refuse_second(connection, admission)
        raise _overtaken(admission)
    except DomainError:
        stored = await idempotency.first_answer(deps.database, tenant_id, method, request_id, payload_hash)
        if stored is None:
            raise
        return run_pb2.Run.FromString(stored)


async def _find(deps: Dependencies, tenant_id: str, draft: Draft) -> Admission:
    found = await find_flow(deps, tenant_id, draft.instance_id, draft.flow_kind)
    is_full = draft.mode == run_pb2.RUN_MODE_FULL
    check_parameters(found.flow_kind, dict(draft.parameters), is_full=is_full)
    return found


async def insert_run(
    deps: Dependencies, connection: Connection, admission: Admission, draft: Draft
) -> run_pb2.Run:
    """Write an admitted run with its number, event, activity and dispatch.

    Raises:
        AlreadyExistsError: RUN_ACTIVE.
        FailedPreconditionError: INSTANCE_DELETING.
        UnavailableError: The flow has had another run since the admission; ask again.
    """
    submission = _admitted(deps, admission, draft)
    if not await insert_submission(connection, admission.tenant_id, submission):
        await _refuse_second(connection, admission)
        raise _overtaken(admission)
    return submission.run


def _admitted(deps: Dependencies, admission: Admission, draft: Draft) -> Submission:
    now = deps.clock.now()
    run = _new_run(admission, draft, deps.ids(), admission.run_number, now)
    action = "observe" if draft.orchestrator_run_id else "create"
    return _submission(deps, admission, run, "submitted", action, now, "")


async def insert_refused(
    deps: Dependencies, connection: Connection, found: Admission, draft: Draft, refusal: DomainError
) -> run_pb2.Run | None:
    """Write a run that was refused while nobody waited for the answer; None: it is recorded already.

    It has run number 0: it never belonged to the flow's sequence, so it moves nothing in lineage-service.
    """
    now = deps.clock.now()
    run = _new_run(found, draft, deps.ids(), 0, now)
    run.status = run_pb2.RUN_STATUS_CANCELLED
    run.end_time.CopyFrom(run.submit_time)
    run.error.type, run.error.message = refusal.reason, refusal.message
    submission = _submission(deps, found, run, "cancelled", None, now, refusal.message)
    if not await insert_submission(connection, found.tenant_id, submission):
        return None
    if draft.orchestrator_run_id:
        ending = make_ending(
            deps,
            found.tenant_id,
            draft.orchestrator_run_id,
            FlowRunState.CANCELLED,
            f"{refusal.reason}: {refusal.message}",
            run_id=run.run_id,
            manner="ends_itself",
        )
        await insert_endings(connection, [ending])
    return run


async def _refuse_second(connection: Connection, admission: Admission) -> None:
    """Say why the flow takes no run now, if it does not."""
    flow = (admission.tenant_id, admission.instance.instance_id, admission.flow_kind)
    if await is_flow_deleted(connection, *flow):
        raise instance_deleting(admission.instance.instance_id)
    active = await run_store.get_active_run(connection, *flow)
    if active is not None:
        raise run_active(active.run.run_id, active.run.run_number)


def _overtaken(admission: Admission) -> DomainError:
    return runs_come_too_fast(admission.instance.name, admission.flow_kind)


def _submission(
    deps: Dependencies,
    admission: Admission,
    run: run_pb2.Run,
    happening: str,
    dispatch_action: str | None,
    now: datetime,
    message: str,
) -> Submission:
    details: dict[str, Any] | None = {"type": run.error.type} if run.HasField("error") else None
    if run.forced:
        details = {**(details or {}), "forced": True, "force_reason": run.force_reason}
    if run.allow_deletion:
        allowed = {"allow_deletion": True, "allow_deletion_reason": run.allow_deletion_reason}
        details = {**(details or {}), **allowed}
    return Submission(
        run=run,
        instance_name=admission.instance.name,
        retry_policy=admission.retry_policy,
        event=run_event(happening, admission.tenant_id, run, deps.ids(), deps.clock),
        activity=activity_row(
            happening,
            admission.tenant_id,
            run.run_id,
            admission.kind,
            activity_id=deps.ids(),
            actor=run.actor,
            now=now,
            message=message,
            details=details,
        ),
        dispatch_action=dispatch_action,
        submit_time=now,
    )


def _new_run(admission: Admission, draft: Draft, run_id: str, number: int, now: datetime) -> run_pb2.Run:
    run = run_pb2.Run(
        run_id=run_id,
        instance_id=admission.instance.instance_id,
        instance_revision=admission.instance.revision,
        flow_kind=admission.flow.flow_kind,
        run_number=number,
        status=run_pb2.RUN_STATUS_PENDING,
        trigger=draft.trigger,
        mode=draft.mode,
        attempt=draft.attempt,
        orchestrator_run_id=draft.orchestrator_run_id,
        submit_time=time_of(now),
        input_versions=admission.answer.input_versions,
        forced=draft.force,
        force_reason=draft.force_reason,
        retry_of_run_id=draft.retry_of_run_id,
        lineage_revision=admission.answer.lineage_revision,
        actor=draft.actor,
        compute_fingerprint=admission.flow.compute_fingerprint,
        is_partial_range=draft.is_partial_range,
        allow_deletion=draft.allow_deletion,
        allow_deletion_reason=draft.allow_deletion_reason,
    )
    run.kind = enum_number(run_pb2.RunKind, admission.kind)
    if draft.parameters.fields:
        run.parameters.CopyFrom(draft.parameters)
    if admission.answer.HasField("base_version"):
        run.base_version.CopyFrom(admission.answer.base_version)
        if (newest := admission.newest_completed) is not None:
            run.base_version.instance_revision = newest.instance_revision
            run.base_version.is_partial_range = newest.is_partial_range
    if draft.scheduled_time is not None:
        run.scheduled_time.CopyFrom(time_of(draft.scheduled_time))
    return run
