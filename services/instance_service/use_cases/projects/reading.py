"""Read projects; nothing is changed."""

from __future__ import annotations

from instance_service.domain import errors
from instance_service.resources.projects import find_project, project_of
from instance_service.store import projects as store
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.instance_pb2 import Project
from optaic.instance.v1.instance_service_pb2 import (
    GetProjectRequest,
    ListProjectsRequest,
    ListProjectsResponse,
)
from optaic.rules.pages import DEFAULT_SIZE
from servicekit import pages
from servicekit.context import RequestContext


async def get_project(deps: Dependencies, context: RequestContext, request: GetProjectRequest) -> Project:
    """Return the project with an id or a name.

    Raises:
        NotFoundError: It does not exist, or the caller may not read it.
    """
    async with deps.database.read(context.tenant_id) as connection:
        project = await find_project(connection, context.tenant_id, request.project_id, request.name)
    if context.readable_projects is not None and project.project_id not in context.readable_projects:
        raise errors.project_not_found(request.project_id or request.name)
    return project


async def list_projects(
    deps: Dependencies, context: RequestContext, request: ListProjectsRequest
) -> ListProjectsResponse:
    """Return a page of the projects that the caller may read, in the order of their names."""
    tenant_id = context.tenant_id
    tokens = pages.PageTokens(deps.signer, tenant_id, "ListProjects")
    position = tokens.decode(request.page_token) or {"name": ""}
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        # Page tokens of an earlier release have no id.
        after = position["name"], position.get("id", "")
        rows = await store.list_projects(connection, tenant_id, after, size + 1, context.readable_projects)
    page = pages.fit(rows, size, lambda row: len(row.snapshot))
    response = ListProjectsResponse(projects=[project_of(row.snapshot) for row in page])
    if len(rows) > len(page):
        last = {"name": page[-1].name, "id": page[-1].project_id}
        response.next_page_token = tokens.encode(last)
    return response
