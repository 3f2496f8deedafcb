"""Record what executors report: start, heartbeat, completion and failure; every report may be repeated."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from optaic.common.v1 import flow_pb2
from optaic.rules.events import RUN_PROGRESSED
from optaic.run.v1 import run_pb2, run_report_service_pb2
from redaction import redact, redact_value
from run_service.domain.errors import (
    fenced,
    invalid_fields,
    run_ended,
    run_not_dispatched,
    run_not_found,
)
from run_service.domain.executors import check_executor, check_fence, is_executor
from run_service.domain.ranges import covers_changes
from run_service.domain.statuses import ENDED, RunEvent, RunStatus, next_status
from run_service.domain.timeline import summarize_columns
from run_service.events import activity_row, run_event
from run_service.store import activities, queues, results, tracebacks
from run_service.store import runs as run_store
from run_service.store.records import Record, datetime_of, manifest_json, message_json
from run_service.use_cases import code, credentials, outputs
from run_service.use_cases.alerts import raise_alerts
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.transitions import announce, change_runs, error_json, storable
from servicekit import off_loop, outbox
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.errors import FieldViolation

_FEW_BYTES = 64 * 1024
_Response = run_report_service_pb2.StartRunResponse
_Report = run_report_service_pb2.CompleteRunRequest | run_report_service_pb2.FailRunRequest


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def _expire_time(deps: Dependencies) -> datetime:
    return deps.clock.now() + timedelta(seconds=deps.settings.lease_seconds)


def start_response(deps: Dependencies, tenant_id: str, record: Record) -> _Response:
    """Return the answer to an executor: the run, and unless it has ended the token and the lease."""
    if record.status in ENDED:
        return _Response(run=record.run)
    return _Response(
        run=record.run,
        fencing_token=record.fencing_token,
        lease=_duration(deps.settings.lease_seconds),
        heartbeat_interval=_duration(deps.settings.heartbeat_seconds),
        credential=credentials.issue(deps, tenant_id, record),
    )


async def start_run(
    deps: Dependencies, tenant_id: str, run_id: str, request: run_report_service_pb2.StartRunRequest
) -> _Response:
    """Start a run; the same executor gets the same answer when it asks again.

    The run fails if the executor's code is not the code on record.
    """
    async with deps.database.transaction(tenant_id) as connection:
        record = await run_store.lock_run(connection, tenant_id, run_id)
        if record is None:
            raise run_not_found(run_id)
        if request.code and code.is_refused(record, request.orchestrator_run_id):
            return start_response(deps, tenant_id, record)
        started = await take_over(deps, connection, tenant_id, record, request)
        if request.code:
            started = await code.state_code(deps, connection, tenant_id, started, request.code)
    if started.revision != record.revision:
        announce(deps, tenant_id, [started])
    return start_response(deps, tenant_id, started)


async def take_over(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    record: Record,
    request: run_report_service_pb2.StartRunRequest,
) -> Record:
    """Give a locked run to the executor of its flow run, or, repeated, confirm that this executor has it.

    Raises:
        FailedPreconditionError: RUN_ENDED, FENCED.
        UnavailableError: RUN_NOT_DISPATCHED: the dispatcher has not stored the flow run yet.
    """
    run_id, orchestrator_run_id = record.run.run_id, request.orchestrator_run_id
    pairing = (record.run.orchestrator_run_id, orchestrator_run_id, record.superseded_run_ids)
    if record.status in ENDED:
        raise run_ended(run_id, record.status, has_status=is_executor(*pairing))
    check_executor(run_id, *pairing)
    if record.status is RunStatus.RUNNING:
        credentials.check_secret(record, request.start_secret)
        await queues.insert_lease(connection, tenant_id, run_id, record.fencing_token, _expire_time(deps))
        return record
    if not record.run.orchestrator_run_id:  # only the dispatcher says which flow run executes it
        raise run_not_dispatched(run_id)
    next_status(run_id, record.status, RunEvent.STARTED)
    token, now = deps.ids(), deps.clock.now()
    (started,) = await change_runs(
        deps,
        connection,
        tenant_id,
        [run_id],
        RunEvent.STARTED,
        actor=request.executor,
        values={
            "start_time": now,
            "fencing_token": token,
            "executor": request.executor,
            "start_secret_hash": credentials.hash_secret(request.start_secret),
        },
    )
    await queues.insert_lease(connection, tenant_id, run_id, token, _expire_time(deps))
    due_time = now + timedelta(seconds=deps.settings.observe_interval_seconds)
    await queues.observe_dispatch(connection, tenant_id, run_id, orchestrator_run_id, due_time)
    return started


async def heartbeat(
    deps: Dependencies, context: RequestContext, request: run_report_service_pb2.HeartbeatRequest
) -> run_report_service_pb2.HeartbeatResponse:
    """Extend the lease, and raise the progress."""
    tenant_id, message = context.tenant_id, redact(request.progress_message)
    has_credential = credentials.is_valid(deps, tenant_id, request.run_id, request.credential)
    has_progress = request.HasField("progress_pct") or bool(message)
    moved = None
    async with deps.database.transaction(tenant_id) as connection:
        if has_progress:  # the run is locked before the lease, as in every transition
            record = await _lock_held(connection, tenant_id, request.run_id, request.fencing_token)
        is_held = has_credential and await queues.extend_lease(
            connection, tenant_id, request.run_id, request.fencing_token, _expire_time(deps)
        )
        if not is_held:
            await _lock_held(connection, tenant_id, request.run_id, request.fencing_token)
            raise fenced(request.run_id)
        if has_progress:
            moved = await _progress(deps, connection, tenant_id, record, request, message)
    if moved is not None:
        announce(deps, tenant_id, [moved])
    return run_report_service_pb2.HeartbeatResponse(
        lease=_duration(deps.settings.lease_seconds),
        credential=credentials.renew(deps, tenant_id, request.run_id, request.credential),
    )


async def _progress(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    record: Record,
    request: run_report_service_pb2.HeartbeatRequest,
    message: str,
) -> Record | None:
    """Store the progress; publish it unless the last event of progress is too recent."""
    now, last = deps.clock.now(), record.progress_event_time
    interval = timedelta(seconds=deps.settings.progress_interval_seconds)
    is_published = last is None or now - last >= interval
    moved = await run_store.update_progress(
        connection,
        tenant_id,
        request.run_id,
        progress_pct=request.progress_pct if request.HasField("progress_pct") else None,
        progress_message=message,
        event_time=now if is_published else None,
    )
    if moved is not None and is_published:
        row = activity_row(
            "progress",
            tenant_id,
            request.run_id,
            moved.kind,
            activity_id=deps.ids(),
            actor=moved.executor,
            now=now,
            message=moved.run.progress_message,
            details={"progress_pct": moved.run.progress_pct},
        )
        await activities.insert_activities(connection, [row])
        await outbox.append(
            connection, [run_event(RUN_PROGRESSED, tenant_id, moved.run, deps.ids(), deps.clock)]
        )
    return moved


async def complete_run(
    deps: Dependencies, context: RequestContext, request: run_report_service_pb2.CompleteRunRequest
) -> run_pb2.Run:
    """Complete a run (RUNNING -> COMPLETED); lineage-service numbers its output version."""
    tenant_id = context.tenant_id
    metrics = await _read_metrics(request)  # before any lock is taken
    async with deps.database.transaction(tenant_id) as connection:
        record = await _lock_reported(deps, connection, tenant_id, request, RunEvent.COMPLETED)
        if record.status in ENDED:
            return record.run
        outputs.check_completion(deps.settings.data_root, tenant_id, record, request)
        result = _result_of(request, record.kind)
        if result is not None:
            await results.update_result(connection, tenant_id, request.run_id, record.kind, result)
        columns = request.pipeline
        output = flow_pb2.VersionRef()
        output.CopyFrom(request.output_version)
        output.version, output.version_id = 0, ""
        changed = code.changed_metrics(record.run)
        (completed,) = await change_runs(
            deps,
            connection,
            tenant_id,
            [request.run_id],
            RunEvent.COMPLETED,
            actor=record.executor,
            message=summarize_columns(
                columns.columns_added, columns.columns_removed, columns.columns_retyped
            ),
            values={
                "metrics": {**(metrics or {}), **changed} if metrics is not None or changed else None,
                "artifacts": dict(request.artifacts),
                "artifact_manifest": manifest_json(request.artifact_manifest),
                "outputs_uri": request.outputs_uri,
                "output_version": message_json(output),
                "model_artifact_version": request.model_artifact_version,
                "telemetry_pending": list(request.telemetry_pending),
                **({"is_partial_range": True} if request.is_partial_range else {}),
                "covers_changes": covers_changes(record.run, _affected_dates(request)),
                "progress_pct": 100.0,
                "last_log_time": _last_log_time(request),
            },
            flow_run="ends_itself",
        )
        await raise_alerts(deps, connection, tenant_id, completed, request.monitoring)
    announce(deps, tenant_id, [completed], "ends_itself")
    return completed.run


def _affected_dates(request: run_report_service_pb2.CompleteRunRequest) -> tuple[str, str] | None:
    dates = request.affected_dates
    return (dates.start, dates.end) if request.HasField("affected_dates") else None


async def _read_metrics(request: run_report_service_pb2.CompleteRunRequest) -> dict[str, Any] | None:
    """Return what a run measured, without secrets; None if it reported nothing."""
    if not request.HasField("metrics"):
        return None

    def read() -> dict[str, Any]:
        hidden: dict[str, Any] = redact_value(message_json(request.metrics))
        return hidden

    # Megabytes take seconds, in which the event loop could accept no heartbeat.
    return read() if request.metrics.ByteSize() <= _FEW_BYTES else await asyncio.to_thread(read)


async def fail_run(
    deps: Dependencies, context: RequestContext, request: run_report_service_pb2.FailRunRequest
) -> run_pb2.Run:
    """Fail a run (RUNNING -> FAILED) as its executor reports."""
    tenant_id = context.tenant_id
    size = len(request.traceback)
    traceback = await off_loop.run_if_large(size, storable, request.traceback)  # before any lock is taken
    async with deps.database.transaction(tenant_id) as connection:
        record = await _lock_reported(deps, connection, tenant_id, request, RunEvent.FAILED)
        if record.status in ENDED:
            return record.run
        outputs.check_failure(deps.settings.data_root, tenant_id, record, request)
        (failed,) = await change_runs(
            deps,
            connection,
            tenant_id,
            [request.run_id],
            RunEvent.FAILED,
            actor=record.executor,
            message=redact(request.error.message)[:1000],
            values={
                "error": error_json(
                    request.error.type,
                    request.error.message,
                    request.error.trace_uri,
                    request.error.last_lines,
                ),
                "artifacts": dict(request.artifacts),
                "artifact_manifest": manifest_json(request.artifact_manifest),
                "last_log_time": _last_log_time(request),
            },
            flow_run="ends_itself",
        )
        if traceback:
            await tracebacks.insert_traceback(connection, tenant_id, request.run_id, traceback)
    announce(deps, tenant_id, [failed], "ends_itself")
    return failed.run


def _last_log_time(request: _Report) -> datetime | None:
    return datetime_of(request.last_log_time) if request.HasField("last_log_time") else None


async def _lock_reported(
    deps: Dependencies, connection: Connection, tenant_id: str, request: _Report, event: RunEvent
) -> Record:
    """Lock a run for the report of its executor; an ended run is returned only if this very report ended it."""
    run_id = request.run_id
    record = await run_store.lock_run(connection, tenant_id, run_id)
    if record is None:
        raise run_not_found(run_id)
    if record.status is RunStatus.PENDING:
        # No executor holds it: say that it has not started, not that the token is wrong.
        next_status(run_id, record.status, RunEvent.COMPLETED)
    check_fence(run_id, record.fencing_token, request.fencing_token, record.status)
    credentials.check(deps, tenant_id, record, request.credential)
    is_repeated = record.status.value == event.value
    if not is_repeated:
        next_status(run_id, record.status, event)
    return record


async def _lock_held(connection: Connection, tenant_id: str, run_id: str, token: str) -> Record:
    """Lock a running run that this executor holds."""
    record = await run_store.lock_run(connection, tenant_id, run_id)
    if record is None:
        raise run_not_found(run_id)
    check_fence(run_id, record.fencing_token, token, record.status)
    next_status(run_id, record.status, RunEvent.COMPLETED)
    return record


def _result_of(request: run_report_service_pb2.CompleteRunRequest, kind: str) -> Message | None:
    name = request.WhichOneof("result")
    if name is None:
        return None
    if name != kind:
        violation = FieldViolation(name, f"is not the result of a {kind} run; send the field {kind}")
        raise invalid_fields([violation])
    result: Message = getattr(request, name)
    return result
