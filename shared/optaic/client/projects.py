"""Projects: the parents of instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from optaic.client import messages
from optaic.client.connection import Connection
from optaic.client.definitions import all_pages
from optaic.client.deletions import preview_deletion
from optaic.client.existence import near, with_hint
from optaic.errors import AlreadyExistsError, NotFoundError
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as api
from optaic.instance.v1.instance_service_pb2_grpc import InstanceServiceStub
from optaic.rules.pages import LARGEST_SIZE

ProjectLike = instance_pb2.Project | str


class Projects:
    """The methods for projects: the parents of instances."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _call(self, method: str, request: Any) -> Any:
        return await self._connection.call("instance", InstanceServiceStub, method, request)

    async def create(
        self,
        name: str,
        *,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        exist_ok: bool = False,
    ) -> instance_pb2.Project:
        """Create a project; its name is unique in the tenant.

        With `exist_ok` the project that has the name already is returned as it is.

        Raises:
            AlreadyExistsError: NAME_TAKEN, without `exist_ok`.
        """
        project = instance_pb2.Project(name=name, description=description, labels=labels)
        try:
            answer: instance_pb2.Project = await self._call(
                "CreateProject", api.CreateProjectRequest(project=project)
            )
        except AlreadyExistsError as error:
            if not exist_ok or error.reason != "NAME_TAKEN":
                raise
            return await self.get(name=name)
        return answer

    async def get(self, project_id: str = "", *, name: str = "") -> instance_pb2.Project:
        """Return a project by id, or by name."""
        request = api.GetProjectRequest(project_id=project_id, name=name)
        try:
            answer: instance_pb2.Project = await self._call("GetProject", request)
        except NotFoundError as error:
            if not name:
                raise
            listed = await self._call("ListProjects", api.ListProjectsRequest(page_size=LARGEST_SIZE))
            raise with_hint(error, near(name, [each.name for each in listed.projects])) from None
        return answer

    async def list(self) -> list[instance_pb2.Project]:
        """Return all projects, sorted by name."""

        async def page(request: Any) -> Any:
            return await self._call("ListProjects", request)

        return await all_pages(page, api.ListProjectsRequest(page_size=LARGEST_SIZE), "projects")

    async def update(
        self,
        project: ProjectLike,
        *,
        name: str | None = None,
        description: str | None = None,
        labels: Mapping[str, str] | None = None,
        etag: str = "",
        validate_only: bool = False,
    ) -> instance_pb2.Project:
        """Change only the given fields; labels are replaced as a whole.

        What is in the project belongs to its id: another name changes nothing of it. Files for `optaic apply` name
        projects: change these files as well.

        Raises:
            AlreadyExistsError: NAME_TAKEN.
            ConflictError: ETAG_MISMATCH; it has changed since.
            FailedPreconditionError: PROJECT_DELETING.
        """
        given = {"name": name, "description": description, "labels": labels}
        changes = {field: value for field, value in given.items() if value is not None}
        changed = instance_pb2.Project(project_id=project_id_of(project), etag=etag)
        messages.fill(changed, changes)
        request = api.UpdateProjectRequest(project=changed, validate_only=validate_only)
        request.update_mask.paths.extend(changes)
        answer: instance_pb2.Project = await self._call("UpdateProject", request)
        return answer

    async def rename(self, project: ProjectLike, name: str, *, etag: str = "") -> instance_pb2.Project:
        """Rename a project; see `update`."""
        return await self.update(project, name=name, etag=etag)

    @overload
    async def delete(
        self,
        project: ProjectLike,
        *,
        etag: str = ...,
        reason: str = ...,
        cascade: bool = ...,
        preview_etag: str = ...,
        dry_run: Literal[False] = ...,
    ) -> instance_pb2.Project: ...

    @overload
    async def delete(
        self,
        project: ProjectLike,
        *,
        etag: str = ...,
        reason: str = ...,
        cascade: bool = ...,
        preview_etag: str = ...,
        dry_run: Literal[True],
    ) -> Sequence[api.DeletedInstance]: ...

    @overload
    async def delete(
        self,
        project: ProjectLike,
        *,
        etag: str = ...,
        reason: str = ...,
        cascade: bool = ...,
        preview_etag: str = ...,
        dry_run: bool,
    ) -> instance_pb2.Project | Sequence[api.DeletedInstance]: ...

    async def delete(
        self,
        project: ProjectLike,
        *,
        cascade: bool = False,
        etag: str = "",
        reason: str = "",
        preview_etag: str = "",
        dry_run: bool = False,
    ) -> instance_pb2.Project | Sequence[api.DeletedInstance]:
        """Start the deletion; the project is DELETING until its last instance is gone.

        Args:
            project: The project or its id.
            cascade: Delete its instances as well; refused if instances of other projects depend on them.
            etag: Refuse if the project has changed since this etag.
            reason: Recorded with every deleted instance.
            preview_etag: From `preview_deletion`: refuse if the deletion would delete anything else than shown.
            dry_run: Change nothing; return the instances that would be deleted, in order.

        Raises:
            FailedPreconditionError: PROJECT_NOT_EMPTY or HAS_DEPENDANTS; `blocking` names what is in the way.
        """
        if dry_run:
            return (await self.preview_deletion(project, cascade=cascade, etag=etag)).instances
        request = api.DeleteProjectRequest(
            project_id=project_id_of(project),
            cascade=cascade,
            etag=etag,
            reason=reason,
            preview_etag=preview_etag,
        )
        answer: instance_pb2.Project = await self._call("DeleteProject", request)
        return answer

    async def preview_deletion(
        self, project: ProjectLike, *, cascade: bool = False, etag: str = ""
    ) -> api.PreviewDeletionResponse:
        """Return everything that `delete` would delete, in order; change nothing."""
        deletion = api.DeleteProjectRequest(project_id=project_id_of(project), cascade=cascade, etag=etag)
        return await preview_deletion(self._connection, api.PreviewDeletionRequest(delete_project=deletion))


def project_id_of(project: ProjectLike) -> str:
    """Return the id of a project given by itself or its id."""
    return project if isinstance(project, str) else project.project_id
