"""Preview a deletion page by page; nothing is changed."""

from __future__ import annotations

from instance_service.domain import errors
from instance_service.resources.deletion_plans import plan_instance, plan_project
from instance_service.resources.projects import find_project
from instance_service.store.deletion import DeletedResource
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.instance_pb2 import InstanceKind, InstanceState
from optaic.instance.v1.instance_service_pb2 import (
    DeletedInstance,
    PreviewDeletionRequest,
    PreviewDeletionResponse,
)
from optaic.rules.pages import LONG_DEFAULT_SIZE
from servicekit import pages
from servicekit.enums import enum_number


async def preview_deletion(
    deps: Dependencies, tenant_id: str, request: PreviewDeletionRequest
) -> PreviewDeletionResponse:
    """Return a page of the resources that a deletion would remove.

    Raises:
        NotFoundError: The instance or project does not exist.
        AbortedError: An etag is stale, or the list has changed since the previous page.
        FailedPreconditionError: The deletion itself would be refused.
    """
    target = request.WhichOneof("target")
    assert target is not None
    wanted = getattr(request, target).SerializeToString(deterministic=True)
    tokens = pages.PageTokens(deps.signer, tenant_id, "PreviewDeletion", target, wanted)
    position = tokens.decode(request.page_token)
    begin, size = int(position.get("index", 0)), request.page_size or LONG_DEFAULT_SIZE
    asked = PreviewDeletionRequest()
    asked.CopyFrom(request)
    getattr(asked, target).ClearField(
        "preview_etag"
    )  # each page makes the plan again; its token holds the etag to compare
    async with deps.database.read(tenant_id) as connection:
        if target == "delete_instance":
            plan = await plan_instance(connection, tenant_id, asked.delete_instance)
        else:
            project = await find_project(connection, tenant_id, asked.delete_project.project_id)
            plan = await plan_project(connection, tenant_id, asked.delete_project, project)
    if position.get("etag", plan.etag) != plan.etag:
        raise errors.deletion_changed()
    rows = [_message(each) for each in plan.deleted[begin : begin + size + 1]]
    page = pages.fit(rows, size, lambda row: row.ByteSize() + 8)
    answer = PreviewDeletionResponse(instances=page, preview_etag=plan.etag, total_size=len(plan.deleted))
    if len(rows) > len(page):
        following = {"index": begin + len(page), "etag": plan.etag}
        answer.next_page_token = tokens.encode(following)
    return answer


def _message(entry: DeletedResource) -> DeletedInstance:
    return DeletedInstance(
        instance_id=entry.instance_id,
        name=entry.name,
        kind=enum_number(InstanceKind, entry.kind),
        project_id=entry.project_id,
        project_name=entry.project_name,
        state=enum_number(InstanceState, entry.state),
    )
