"""Tell the executor of a run which trained versions of its model there are; nothing is changed."""

from __future__ import annotations

from optaic.rules import roles
from optaic.rules.pages import DEFAULT_SIZE
from optaic.run.v1 import run_report_service_pb2
from run_service.domain.errors import run_not_found
from run_service.domain.executors import check_fence
from run_service.domain.statuses import RunEvent, next_status
from run_service.store import runs as run_store
from run_service.store import trainings
from run_service.use_cases import credentials
from run_service.use_cases.dependencies import Dependencies
from servicekit import pages
from servicekit.context import RequestContext


async def list_trained_versions(
    deps: Dependencies, context: RequestContext, request: run_report_service_pb2.ListTrainedVersionsRequest
) -> run_report_service_pb2.ListTrainedVersionsResponse:
    """Return a page of the completed trainings of a running run's instance, newest first.

    Raises:
        NotFoundError: RUN_NOT_FOUND.
        FailedPreconditionError: FENCED, RUN_ENDED.
    """
    tenant_id, run_id = context.tenant_id, request.run_id
    tokens = pages.PageTokens(deps.signer, tenant_id, "ListTrainedVersions", run_id)
    before = tokens.decode(request.page_token).get("run_number")
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        record = await run_store.get_run(connection, tenant_id, run_id)
        if record is None:
            raise run_not_found(run_id)
        check_fence(run_id, record.fencing_token, request.fencing_token, record.status)
        credentials.check(deps, tenant_id, record, request.credential)
        next_status(run_id, record.status, RunEvent.COMPLETED)  # an ended run reads nothing
        found = await trainings.list_trained_versions(
            connection, tenant_id, record.run.instance_id, before=before, limit=size + 1
        )
        monitored = [each.version_id for each in record.run.input_versions if each.role == roles.MONITORED]
        read = await trainings.get_model_run(connection, tenant_id, monitored[0]) if monitored else ""
    page = pages.fit(found, size, lambda each: each.ByteSize())
    response = run_report_service_pb2.ListTrainedVersionsResponse(
        trained_versions=page, monitored_run_id=read
    )
    if len(found) > len(page):
        response.next_page_token = tokens.encode({"run_number": page[-1].run_number})
    return response
