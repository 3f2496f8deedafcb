"""Projects: the parents of instances. Generated from optaic.client.projects by `make client`; do not edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, overload

from optaic.client import projects as asynchronous
from optaic.client.projects import ProjectLike
from optaic.client.synchronous.loop import Plain
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as api


class Projects(Plain[asynchronous.Projects]):
    """The methods for projects: the parents of instances."""

    def create(
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
        return self._loop.run(
            self._target.create(name, description=description, labels=labels, exist_ok=exist_ok)
        )

    def get(self, project_id: str = "", *, name: str = "") -> instance_pb2.Project:
        """Return a project by id, or by name."""
        return self._loop.run(self._target.get(project_id, name=name))

    def list(self) -> list[instance_pb2.Project]:
        """Return all projects, sorted by name."""
        return self._loop.run(self._target.list())

    def update(
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
        return self._loop.run(
            self._target.update(
                project,
                name=name,
                description=description,
                labels=labels,
                etag=etag,
                validate_only=validate_only,
            )
        )

    def rename(self, project: ProjectLike, name: str, *, etag: str = "") -> instance_pb2.Project:
        """Rename a project; see `update`."""
        return self._loop.run(self._target.rename(project, name, etag=etag))

    @overload
    def delete(
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
    def delete(
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
    def delete(
        self,
        project: ProjectLike,
        *,
        etag: str = ...,
        reason: str = ...,
        cascade: bool = ...,
        preview_etag: str = ...,
        dry_run: bool,
    ) -> instance_pb2.Project | Sequence[api.DeletedInstance]: ...

    def delete(
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
        return self._loop.run(
            self._target.delete(
                project, cascade=cascade, etag=etag, reason=reason, preview_etag=preview_etag, dry_run=dry_run
            )
        )

    def preview_deletion(
        self, project: ProjectLike, *, cascade: bool = False, etag: str = ""
    ) -> api.PreviewDeletionResponse:
        """Return everything that `delete` would delete, in order; change nothing."""
        return self._loop.run(self._target.preview_deletion(project, cascade=cascade, etag=etag))
