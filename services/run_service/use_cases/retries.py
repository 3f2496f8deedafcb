"""Retry ended runs: on request (RetryRun), and after a failure by the retry policy of the instance."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import structlog

from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.admission import check_force
from run_service.domain.errors import NoRoomError, run_not_ended, run_not_found
from run_service.domain.retries import delay_before_retry
from run_service.domain.statuses import ENDED
from run_service.domain.timeline import activity_type
from run_service.events import activity_row
from run_service.store import activities, queues
from run_service.store import runs as run_store
from run_service.store.records import Record
from run_service.use_cases.admission import WantedRun, admit, find_flow
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.submission import insert_refused, insert_run, submit_once
from servicekit.access import SERVICE_ROLES
from servicekit.context import RequestContext, bind, new_traceparent
from servicekit.database import Connection
from servicekit.errors import AlreadyExistsError, FailedPreconditionError, NotFoundError

_ACTOR = "retry"
_WAITS = "retry_waits"
_log = structlog.get_logger(__name__)


class _SupersededError(Exception):
    """The flow has had another run since, or the retry exists already."""


async def retry_run(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.RetryRunRequest
) -> run_pb2.Run:
    """Submit an ended run's flow again; this replaces an automatic retry that has not come yet.

    Raises:
        NotFoundError: RUN_NOT_FOUND, INSTANCE_NOT_FOUND, FLOW_NOT_FOUND.
        FailedPreconditionError: RUN_NOT_ENDED, or what SubmitRun refuses.
        InvalidArgumentError: FORCE_REASON_REQUIRED.
    """
    check_force(request.force_reason, force=request.force)
    _, wanted = await _following(deps, context.tenant_id, request.run_id, context.actor)
    # What somebody retries by hand is no part of a refresh.
    wanted = replace(wanted, force=request.force, force_reason=request.force_reason, refresh_id="")
    return await submit_once(deps, context.tenant_id, wanted, "RetryRun", request, request.request_id)


async def plan_retries(
    deps: Dependencies, connection: Connection, tenant_id: str, failed: Collection[Record]
) -> None:
    """Queue the automatic retries of runs that have just failed."""
    now = deps.clock.now()
    delays = {
        record.run.run_id: delay_before_retry(record.retry_policy, record.run.attempt, record.run.error.type)
        for record in failed
    }
    rows = [
        {"tenant_id": tenant_id, "run_id": run_id, "due_time": now + delay}
        for run_id, delay in delays.items()
        if delay is not None
    ]
    await queues.insert_retries(connection, rows)


async def retry_automatically(deps: Dependencies, failed: queues.RunKey) -> None:
    """Submit the run that follows a failed one; where admission refuses it, record it as CANCELLED.

    Raises:
        UnavailableError: Admission is undecided; try again.
        NoRoomError: TOO_MANY_ACTIVE_RUNS; try again.
    """
    tenant_id, run_id = failed
    request = RequestContext(tenant_id, _ACTOR, deps.ids(), new_traceparent(), SERVICE_ROLES)
    with bind(request):
        try:
            await _retry(deps, tenant_id, run_id)
        except (NotFoundError, _SupersededError) as error:
            _log.info("retry dropped", tenant=tenant_id, run_id=run_id, error=repr(error))
            async with deps.database.transaction(tenant_id) as connection:
                await queues.delete_retry(connection, tenant_id, run_id)
        except NoRoomError as error:
            await _say_that_it_waits(deps, tenant_id, run_id, error)
            raise


async def _say_that_it_waits(deps: Dependencies, tenant_id: str, run_id: str, refusal: NoRoomError) -> None:
    """Say once in the timeline of the failed run why its retry waits; it is tried again until it is admitted."""
    async with deps.database.transaction(tenant_id) as connection:
        record = await run_store.lock_run(connection, tenant_id, run_id)
        if record is None or await activities.has_activity(
            connection, tenant_id, run_id, activity_type(record.kind, _WAITS)
        ):
            return
        row = activity_row(
            _WAITS,
            tenant_id,
            run_id,
            record.kind,
            activity_id=deps.ids(),
            actor=_ACTOR,
            now=deps.clock.now(),
            message=f"the retry waits: {refusal.message}",
        )
        await activities.insert_activities(connection, [row])


async def _retry(deps: Dependencies, tenant_id: str, run_id: str) -> None:
    failed_number, wanted = await _following(deps, tenant_id, run_id, _ACTOR)
    found = await find_flow(deps, tenant_id, wanted.instance_id, wanted.flow_kind)
    try:
        admission = await admit(deps, found, wanted, must_compare=True)
        async with deps.room.transaction(tenant_id) as connection:
            if not await queues.delete_retry(connection, tenant_id, run_id):
                raise _SupersededError
            run = await insert_run(deps, connection, admission)
            if run.run_number != failed_number + 1:
                raise _SupersededError
        deps.wake_dispatcher()
    except (FailedPreconditionError, AlreadyExistsError) as refusal:
        async with deps.database.transaction(tenant_id) as connection:
            if await queues.delete_retry(connection, tenant_id, run_id):
                await insert_refused(deps, connection, found, wanted, refusal)


async def _following(deps: Dependencies, tenant_id: str, run_id: str, actor: str) -> tuple[int, WantedRun]:
    """Return the number of an ended run, and the run that is to follow it.

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
    wanted = WantedRun(
        instance_id=record.run.instance_id,
        flow_kind=record.run.flow_kind,
        trigger=run_pb2.RUN_TRIGGER_RETRY,
        actor=actor,
        mode=record.run.mode,
        parameters=record.run.parameters,
        attempt=record.run.attempt + 1,
        retry_of_run_id=run_id,
        refresh_id=record.run.refresh_id,
    )
    return record.run.run_number, wanted
