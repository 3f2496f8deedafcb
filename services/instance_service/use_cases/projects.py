"""Creating and reading projects."""

from __future__ import annotations

from instance_service.store import projects as store
from instance_service.store.tables import Connection
from instance_service.use_cases.definitions.reading import DEFAULT_PAGE
from instance_service.use_cases.environment import Environment
from instance_service.use_cases.mutation import mutate
from instance_service.use_cases.shapes import timestamp
from optaic.instance.v1.instance_pb2 import Project
from optaic.instance.v1.instance_service_pb2 import (
    CreateProjectRequest,
    GetProjectRequest,
    ListProjectsRequest,
    ListProjectsResponse,
)
from servicekit import pages
from servicekit.errors import AlreadyExistsError, FieldViolation, InvalidArgumentError, NotFoundError
from servicekit.events import check_size


async def create_project(environment: Environment, tenant_id: str, request: CreateProjectRequest) -> Project:
    """Create a project.

    Raises:
        AlreadyExistsError: The name is taken.
        InvalidArgumentError: It has no name, or is too large.
    """
    if not request.project.name:
        violation = FieldViolation("project.name", "is required", "INVALID_ARGUMENT")
        raise InvalidArgumentError("INVALID_ARGUMENT", "a project needs a name", field_violations=[violation])
    check_size(request.project, "project")

    async def insert(connection: Connection) -> Project:
        now = environment.clock.now()
        project = Project()
        project.CopyFrom(request.project)
        project.project_id = environment.ids()
        project.create_time.CopyFrom(timestamp(now))
        row = {
            "tenant_id": tenant_id,
            "project_id": project.project_id,
            "name": project.name,
            "snapshot": project.SerializeToString(),
            "create_time": now,
        }
        if not await store.insert_project(connection, row):
            violation = FieldViolation("project.name", "is taken", "NAME_TAKEN")
            raise AlreadyExistsError(
                "NAME_TAKEN",
                f"there is a project {project.name}",
                metadata={"name": project.name},
                field_violations=[violation],
            )
        return project

    return await mutate(environment, tenant_id, request, Project, insert)


async def get_project(environment: Environment, tenant_id: str, request: GetProjectRequest) -> Project:
    """Return a project by id or name.

    Raises:
        NotFoundError: There is none.
    """
    async with environment.database.read(tenant_id) as connection:
        snapshot = await store.get_project(connection, tenant_id, request.project_id, request.name)
    if snapshot is None:
        which = request.project_id or request.name
        raise NotFoundError("PROJECT_NOT_FOUND", f"there is no project {which}", metadata={"project": which})
    return Project.FromString(snapshot)


async def list_projects(
    environment: Environment, tenant_id: str, request: ListProjectsRequest
) -> ListProjectsResponse:
    """Return a page of projects in the order of names."""
    selection = pages.filter_hash("projects")
    after = pages.decode(request.page_token, selection)["name"] if request.page_token else ""
    size = request.page_size or DEFAULT_PAGE
    async with environment.database.read(tenant_id) as connection:
        rows = await store.list_projects(connection, tenant_id, after, size + 1)
    page = pages.fit(rows, size, lambda row: len(row.snapshot))
    response = ListProjectsResponse(projects=[Project.FromString(row.snapshot) for row in page])
    if len(rows) > len(page):
        response.next_page_token = pages.encode({"name": page[-1].name}, selection)
    return response
