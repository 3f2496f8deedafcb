"""Record what has become of that which ended runs owe outside systems; nothing else of an ended run changes."""

from __future__ import annotations

from optaic.run.v1 import run_pb2, run_report_service_pb2
from redaction import redact
from run_service.domain.errors import run_not_ended, run_not_found
from run_service.domain.executors import check_fence
from run_service.domain.statuses import ENDED, RunStatus
from run_service.events import activity_row
from run_service.store import activities, results
from run_service.store import runs as run_store
from run_service.store.records import Record
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.transitions import announce
from servicekit import audit
from servicekit.context import RequestContext

_LONGEST_NOTE = 1_000
_HAPPENINGS = {
    run_report_service_pb2.TELEMETRY_STATE_DELIVERED: "telemetry_delivered",
    run_report_service_pb2.TELEMETRY_STATE_DROPPED: "telemetry_dropped",
}


async def report_telemetry(
    deps: Dependencies, context: RequestContext, request: run_report_service_pb2.ReportTelemetryRequest
) -> run_pb2.Run:
    """Take a system out of what a completed run owes, once; a repetition changes nothing.

    Raises:
        NotFoundError: RUN_NOT_FOUND.
        FailedPreconditionError: FENCED, RUN_NOT_ENDED.
    """
    tenant_id, run_id = context.tenant_id, request.run_id
    async with deps.database.transaction(tenant_id) as connection:
        record = await run_store.lock_run(connection, tenant_id, run_id)
        if record is None:
            raise run_not_found(run_id)
        check_fence(run_id, record.fencing_token, request.fencing_token, record.status)
        if record.status not in ENDED:
            raise run_not_ended(run_id)
        if not _is_owed(record, request):
            return record.run
        if record.run.HasField("training"):
            names = run_pb2.TrainingResult(
                mlflow_run_id=request.mlflow_run_id, model_version=request.model_version
            )
            await results.update_result(connection, tenant_id, run_id, record.kind, names)
        changed = await run_store.settle_telemetry(connection, tenant_id, run_id, request.system)
        audit.note(f"runs/{run_id}", before=record.revision, after=changed.revision, reason=request.reason)
        row = activity_row(
            _HAPPENINGS[request.state],
            tenant_id,
            run_id,
            record.kind,
            activity_id=deps.ids(),
            actor=record.executor,
            now=deps.clock.now(),
            message=redact(request.reason)[:_LONGEST_NOTE],
            details={"system": request.system},
        )
        await activities.insert_activities(connection, [row])
    announce(deps, tenant_id, [changed])
    return changed.run


def _is_owed(record: Record, request: run_report_service_pb2.ReportTelemetryRequest) -> bool:
    """Return whether the report changes something: a run that did not complete owes nothing."""
    is_told = request.state in _HAPPENINGS
    return is_told and record.status is RunStatus.COMPLETED and request.system in record.run.telemetry_pending
