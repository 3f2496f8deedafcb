"""Create, update and delete projects."""

from __future__ import annotations

from collections.abc import Sequence

from instance_service.domain import errors
from instance_service.resources.conversion import etag_of, timestamp
from instance_service.resources.deletion_plans import plan_project
from instance_service.resources.deletions import condemn
from instance_service.resources.projects import (
    check_project_etag,
    check_project_lives,
    find_project,
)
from instance_service.store import projects as store
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.mutation import mutate
from optaic.instance.v1.instance_pb2 import PROJECT_STATE_ACTIVE, PROJECT_STATE_DELETING, Project
from optaic.instance.v1.instance_service_pb2 import (
    CreateProjectRequest,
    DeleteProjectRequest,
    UpdateProjectRequest,
)
from redaction.messages import restore_credentials
from servicekit import audit
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.errors import FieldViolation
from servicekit.events import check_size

_MUTABLE = ("name", "description", "labels")


async def create_project(
    deps: Dependencies, context: RequestContext, request: CreateProjectRequest
) -> Project:
    """Create a project.

    Raises:
        AlreadyExistsError: The name is already used.
        InvalidArgumentError: The project has no name, or is too large.
    """
    _check(request.project)
    tenant_id = context.tenant_id

    async def insert(connection: Connection) -> Project:
        now = deps.clock.now()
        given = request.project
        project = Project(name=given.name, description=given.description, labels=given.labels)
        project.project_id = deps.ids()
        project.state, project.revision, project.etag = PROJECT_STATE_ACTIVE, 1, etag_of(1)
        project.author = context.actor
        project.create_time.CopyFrom(timestamp(now))
        project.update_time.CopyFrom(timestamp(now))
        row = {
            "tenant_id": tenant_id,
            "project_id": project.project_id,
            "name": project.name,
            "state": "active",
            "snapshot": project.SerializeToString(),
            "create_time": now,
        }
        if not await store.insert_project(connection, row):
            raise errors.project_name_taken(project.name)
        audit.note(f"projects/{project.project_id}", after=project.revision)
        return project

    return await mutate(deps, tenant_id, request, Project, insert)


async def update_project(
    deps: Dependencies, context: RequestContext, request: UpdateProjectRequest
) -> Project:
    """Update the masked fields of a project; without a difference no revision is made.

    Raises:
        NotFoundError: It does not exist.
        AlreadyExistsError: The name is already used.
        AbortedError: The etag is stale.
        FailedPreconditionError: The project is being deleted.
        InvalidArgumentError: The mask names an unknown field, or the project would have no name or be too large.
    """
    paths, tenant_id = _paths(request.update_mask.paths), context.tenant_id

    async def update(connection: Connection) -> Project:
        current = await find_project(connection, tenant_id, request.project.project_id)
        check_project_etag(current, request.project.etag)
        check_project_lives(current)
        project = Project()
        project.CopyFrom(current)
        for path in paths:
            project.ClearField(path)  # type: ignore[arg-type]  # the stubs want literals
        wanted = Project()
        wanted.CopyFrom(request.project)
        for name in {field.name for field in Project.DESCRIPTOR.fields} - set(paths):
            wanted.ClearField(name)  # type: ignore[arg-type]  # the type stubs require literals
        project.MergeFrom(wanted)
        restore_credentials(project, current)
        if project == current:
            return current
        _check(project)
        if await store.is_name_taken(connection, tenant_id, project.name, project.project_id):
            raise errors.project_name_taken(project.name)
        await _write(deps, connection, context, project, "")
        return project

    return await mutate(deps, tenant_id, request, Project, update)


async def delete_project(
    deps: Dependencies, context: RequestContext, request: DeleteProjectRequest
) -> Project:
    """Start the deletion of a project, or return the one in progress; an empty project is removed immediately.

    Raises:
        NotFoundError: It does not exist.
        AbortedError: The etag is stale, or the deletion would remove other instances than the preview showed.
        FailedPreconditionError: The project is not empty and `cascade` is not set, or another project depends on it.
    """
    tenant_id = context.tenant_id

    async def delete(connection: Connection) -> Project:
        project = await find_project(connection, tenant_id, request.project_id)
        plan = await plan_project(connection, tenant_id, request, project)
        if plan.is_under_way:
            return project
        await condemn(deps, connection, context, plan, request.reason)
        project.state = PROJECT_STATE_DELETING
        await _write(deps, connection, context, project, request.reason)
        await store.delete_emptied(connection, tenant_id, [project.project_id])
        return project

    return await mutate(deps, tenant_id, request, Project, delete)


async def _write(
    deps: Dependencies, connection: Connection, context: RequestContext, project: Project, reason: str
) -> None:
    """Store a project as its next revision."""
    audit.note(
        f"projects/{project.project_id}", before=project.revision, after=project.revision + 1, reason=reason
    )
    project.revision += 1
    project.etag, project.author = etag_of(project.revision), context.actor
    project.update_time.CopyFrom(timestamp(deps.clock.now()))
    await store.update_project(
        connection,
        context.tenant_id,
        project.project_id,
        name=project.name,
        state="deleting" if project.state == PROJECT_STATE_DELETING else "active",
        snapshot=project.SerializeToString(),
    )


def _paths(given: Sequence[str]) -> Sequence[str]:
    if list(given) == ["*"]:
        return _MUTABLE
    violations = [
        FieldViolation(
            f"update_mask.paths[{index}]",
            f"{path!r} cannot be changed; these can: {', '.join(_MUTABLE)}",
            "IMMUTABLE_FIELD",
        )
        for index, path in enumerate(given)
        if path not in _MUTABLE
    ]
    if violations:
        raise errors.immutable_fields(violations)
    if not given:
        raise errors.invalid_field(
            "INVALID_ARGUMENT",
            "update_mask",
            "is empty; name at least one field",
            "update_mask names no field to change",
        )
    return given


def _check(project: Project) -> None:
    if not project.name:
        raise errors.invalid_field(
            "INVALID_ARGUMENT", "project.name", "is required", "a project needs a name"
        )
    check_size(project, "project")
