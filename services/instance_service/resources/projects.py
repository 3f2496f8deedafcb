"""Read and check stored projects; fields that an older release did not store are filled in."""

from __future__ import annotations

from instance_service.domain import errors
from instance_service.resources.conversion import etag_of
from instance_service.store import projects as store
from optaic.instance.v1.instance_pb2 import PROJECT_STATE_ACTIVE, PROJECT_STATE_DELETING, Project
from servicekit.database import Connection
from servicekit.ids import is_id


def project_of(snapshot: bytes) -> Project:
    """Convert a stored snapshot to a project."""
    project = Project.FromString(snapshot)
    project.state = project.state or PROJECT_STATE_ACTIVE
    project.revision = project.revision or 1
    project.etag = etag_of(project.revision)
    if not project.HasField("update_time"):
        project.update_time.CopyFrom(project.create_time)
    return project


async def find_project(connection: Connection, tenant_id: str, project_id: str, name: str = "") -> Project:
    """Return the project with an id or a name.

    Raises:
        NotFoundError: It does not exist.
    """
    project_id = project_id.lower()
    snapshot = None
    if is_id(project_id) or (name and not project_id):
        snapshot = await store.get_project(connection, tenant_id, project_id, name)
    if snapshot is None:
        raise errors.project_not_found(project_id or name)
    return project_of(snapshot)


def check_project_etag(project: Project, etag: str) -> None:
    """Refuse a stale etag; an empty etag matches any revision.

    Raises:
        AbortedError: The project has changed since it was read.
    """
    if etag and etag != project.etag:
        raise errors.etag_mismatch(f"project {project.name}", project.etag, etag)


def check_project_lives(project: Project) -> None:
    """Refuse to change a project, or anything in it, while it is being deleted.

    Raises:
        FailedPreconditionError: The project is being deleted.
    """
    if project.state == PROJECT_STATE_DELETING:
        raise errors.project_deleting(project.name)
