"""Record versions that another system has written: each is a run that begins with its end."""

from __future__ import annotations

from dataclasses import replace

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.rules.sources import URL
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.errors import flow_not_external
from run_service.domain.external_versions import ExternalVersion, check_date, is_current
from run_service.store import runs as run_store
from run_service.store.submission import Submission, write_submission
from run_service.use_cases.admission import Admission, FoundFlow, WantedRun, admit, find_flow
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.submission import admitted_run, make_submission, overtaken, refuse_second
from servicekit import idempotency
from servicekit.context import RequestContext
from servicekit.errors import DomainError

_METHOD = "ReportExternalVersion"
_ATTEMPTS = 5  # several reporters of one flow may come at once
_UNJUDGED = frozenset(
    {
        instance_pb2.FreshnessPolicy.FREQUENCY_UNSPECIFIED,
        instance_pb2.FreshnessPolicy.FREQUENCY_IRREGULAR,
    }
)
_Request = run_service_pb2.ReportExternalVersionRequest


async def report_external_version(
    deps: Dependencies, context: RequestContext, request: _Request
) -> run_pb2.Run:
    """Record a version, or answer the run that has recorded it if it is the current one."""
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    try:
        return await _report(deps, context, request, payload_hash)
    except DomainError:
        stored = await idempotency.first_answer(
            deps.database, tenant_id, _METHOD, request.request_id, payload_hash
        )
        if stored is None:
            raise
        return run_pb2.Run.FromString(stored)


async def _report(
    deps: Dependencies, context: RequestContext, request: _Request, payload_hash: bytes
) -> run_pb2.Run:
    tenant_id = context.tenant_id
    stored = await idempotency.first_answer(
        deps.database, tenant_id, _METHOD, request.request_id, payload_hash
    )
    if stored is not None:  # even if other versions have been reported since
        return run_pb2.Run.FromString(stored)
    wanted = WantedRun(
        instance_id=request.instance_id,
        flow_kind=flow_pb2.FLOW_KIND_UNSPECIFIED,
        trigger=run_pb2.RUN_TRIGGER_EXTERNAL,
        actor=context.actor,
        mode=run_pb2.RUN_MODE_FULL,
    )
    found = await find_flow(deps, tenant_id, wanted.instance_id, wanted.flow_kind)
    if not found.flow.is_external:
        raise flow_not_external(found.instance.name)
    reported = ExternalVersion(
        request.external_version, request.last_data_date, found.flow.compute_fingerprint
    )
    for _ in range(_ATTEMPTS):
        admission = await admit(deps, found, wanted, must_compare=True)
        current = await _find_current(deps, admission)
        if current is not None and is_current(reported, _version_of(current)):
            return await _answer_again(deps, tenant_id, request, payload_hash, current)
        check_date(reported, is_judged=found.instance.freshness_policy.frequency not in _UNJUDGED)
        submission = replace(
            _completed(deps, admission, reported),
            method=_METHOD,
            request_id=request.request_id,
            payload_hash=payload_hash,
        )
        if await write_submission(deps.database, tenant_id, submission):
            return submission.run
        async with deps.database.read(tenant_id) as connection:
            await refuse_second(connection, found)
    raise overtaken(found)


async def _find_current(deps: Dependencies, admission: Admission) -> run_pb2.Run | None:
    """Return the run that has recorded the current version."""
    newest, tenant_id = admission.newest_completed, admission.found.tenant_id
    if newest is None:
        return None
    async with deps.database.read(tenant_id) as connection:
        record = await run_store.get_run(connection, tenant_id, newest.run_id)
    return None if record is None else record.run


def _version_of(run: run_pb2.Run) -> ExternalVersion:
    return ExternalVersion(run.external_version, run.output_version.last_data_date, run.compute_fingerprint)


async def _answer_again(
    deps: Dependencies, tenant_id: str, request: _Request, payload_hash: bytes, current: run_pb2.Run
) -> run_pb2.Run:
    """Answer the run of the current version, also to later repeats of this request."""
    async with deps.database.transaction(tenant_id) as connection:
        stored = await idempotency.replay_or_none(connection, _METHOD, request.request_id, payload_hash)
        if stored is not None:
            return run_pb2.Run.FromString(stored)
        await idempotency.store(connection, _METHOD, request.request_id, current.SerializeToString())
    return current


def _completed(deps: Dependencies, admission: Admission, reported: ExternalVersion) -> Submission:
    """Return the run that records a version, with all rows that are inserted with it."""
    found, now = admission.found, deps.clock.now()
    run = admitted_run(admission, deps.ids(), admission.run_number, now)
    run.status = run_pb2.RUN_STATUS_COMPLETED
    run.start_time.CopyFrom(run.submit_time)
    run.end_time.CopyFrom(run.submit_time)
    run.progress_pct = 100.0
    run.external_version = reported.name
    run.output_version.uri = _place_of(found)
    run.output_version.physical_version = reported.name
    run.output_version.last_data_date = reported.last_data_date
    run.pipeline.last_data_date = reported.last_data_date
    message = f"version {reported.name} was reported"
    return make_submission(deps, found, run, "completed", None, now, message)


def _place_of(found: FoundFlow) -> str:
    """Return where the store reads in place; what a caller says has no part in it."""
    return found.instance.dataset.store.config.fields[URL].string_value
