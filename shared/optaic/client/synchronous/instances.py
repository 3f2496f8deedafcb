"""Instances: configured uses of definitions. Generated from optaic.client.instances by `make client`; do not edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack, overload

from optaic.client import instances as asynchronous
from optaic.client.instance_fields import InstanceChanges, InstanceFields
from optaic.client.instances import Upstreams
from optaic.client.references import InstanceLike
from optaic.client.synchronous.promotions import Promotions
from optaic.definition.v1 import definition_pb2
from optaic.instance.v1 import data_removal_service_pb2 as removal_api
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as api


class Instances(Promotions):
    """The methods for instances: configured uses of definitions."""

    _target: asynchronous.Instances

    def create(
        self,
        *,
        project: instance_pb2.Project | str,
        name: str,
        upstreams: Upstreams | None = None,
        validate_only: bool = False,
        reason: str = "",
        request_id: str = "",
        timeout: float | None = None,
        exist_ok: bool = False,
        **fields: Unpack[InstanceFields],
    ) -> instance_pb2.Instance:
        """Create an instance; the service waits for ACTIVE within the call's deadline.

        Args:
            project: The project or its id.
            name: Unique among the project's instances.
            upstreams: Role -> instance or instances, for example `{"input": prices}`.
            validate_only: Check everything, store nothing.
            reason: Recorded with the revision.
            request_id: Repeats with the same id get the first answer.
            timeout: The deadline of this call in seconds, instead of the client's: while an outside system is
                away, the answer comes shortly before it and says PROVISIONING.
            exist_ok: Return the project's instance of that name and kind, where there is one, as it is: what it is
                configured with is not compared (`optaic apply` makes that what it should be).
            fields: What it is (`dataset=`, `signal=`, `backtest=`, ...) and any other field of Instance, as plain
                values. Other known names (`config_json`, `schedule_json`, ...) are accepted.

        Raises:
            AlreadyExistsError: NAME_TAKEN; with `exist_ok` only where the other one is of another kind.
            OptaicError: For example InvalidConfigError with every violation's path.
        """
        return self._loop.run(
            self._target.create(
                project=project,
                name=name,
                upstreams=upstreams,
                validate_only=validate_only,
                reason=reason,
                request_id=request_id,
                timeout=timeout,
                exist_ok=exist_ok,
                **fields,
            )
        )

    def get(self, instance: InstanceLike, *, revision: int = 0) -> instance_pb2.Instance:
        """Return an instance as it is, or as of a revision."""
        return self._loop.run(self._target.get(instance, revision=revision))

    def get_by_name(self, name: str, *, project: str = "") -> instance_pb2.Instance:
        """Return the one instance of a name.

        Raises:
            NotFoundError: There is none.
            FailedPreconditionError: AMBIGUOUS_NAME; several projects have one.
        """
        return self._loop.run(self._target.get_by_name(name, project=project))

    def list(
        self,
        *,
        project: instance_pb2.Project | str = "",
        name: str = "",
        kinds: Sequence[str | int] = (),
        labels: Mapping[str, str] | None = None,
        states: Sequence[str | int] = (),
        owner: str = "",
        definition: definition_pb2.Definition | str = "",
    ) -> list[instance_pb2.Instance]:
        """Return instances, sorted by name; components only if their kind is requested.

        `definition`, or its id, finds the instances that use it, directly or in a component.

        Raises:
            NotFoundError: There is no such project or definition.
        """
        return self._loop.run(
            self._target.list(
                project=project,
                name=name,
                kinds=kinds,
                labels=labels,
                states=states,
                owner=owner,
                definition=definition,
            )
        )

    def update(
        self,
        instance: InstanceLike,
        changes: Mapping[str, Any] | None = None,
        *,
        upstreams: Upstreams | None = None,
        etag: str = "",
        reason: str = "",
        validate_only: bool = False,
        **fields: Unpack[InstanceChanges],
    ) -> instance_pb2.Instance:
        """Change only the given fields; a `config` is replaced as a whole.

        Args:
            instance: The instance or its id.
            changes: Nested values, for example `{"dataset": {"pipeline": {"config": {...}}}}`.
            upstreams: Replaces all upstreams.
            etag: Refuse if the instance has changed since this etag.
            reason: Recorded with the revision.
            validate_only: Check everything, store nothing.
            fields: More changes, by keyword.

        Raises:
            OptaicError: For example ConflictError for a stale etag.
        """
        return self._loop.run(
            self._target.update(
                instance,
                changes,
                upstreams=upstreams,
                etag=etag,
                reason=reason,
                validate_only=validate_only,
                **fields,
            )
        )

    @overload
    def delete(
        self,
        instance: InstanceLike,
        *,
        etag: str = ...,
        reason: str = ...,
        cascade: bool = ...,
        validate_only: bool = ...,
        preview_etag: str = ...,
        dry_run: Literal[False] = ...,
    ) -> instance_pb2.Instance: ...

    @overload
    def delete(
        self,
        instance: InstanceLike,
        *,
        etag: str = ...,
        reason: str = ...,
        cascade: bool = ...,
        validate_only: bool = ...,
        preview_etag: str = ...,
        dry_run: Literal[True],
    ) -> Sequence[api.DeletedInstance]: ...

    @overload
    def delete(
        self,
        instance: InstanceLike,
        *,
        etag: str = ...,
        reason: str = ...,
        cascade: bool = ...,
        validate_only: bool = ...,
        preview_etag: str = ...,
        dry_run: bool,
    ) -> instance_pb2.Instance | Sequence[api.DeletedInstance]: ...

    def delete(
        self,
        instance: InstanceLike,
        *,
        etag: str = "",
        reason: str = "",
        cascade: bool = False,
        validate_only: bool = False,
        preview_etag: str = "",
        dry_run: bool = False,
    ) -> instance_pb2.Instance | Sequence[api.DeletedInstance]:
        """Start the deletion. The instance is gone when its deployments and lineage are; its data stays for a grace period.

        Args:
            instance: The instance or its id.
            etag: Refuse if the instance has changed since this etag.
            reason: Recorded with every deleted instance.
            cascade: Delete all dependants as well.
            validate_only: Check, and return the instance as it would be; nothing is changed.
            preview_etag: From `preview_deletion`: refuse if the deletion would delete anything else than shown.
            dry_run: Change nothing; return the instances that would be deleted, in order.

        Raises:
            FailedPreconditionError: HAS_DEPENDANTS; `blocking` names each.
        """
        return self._loop.run(
            self._target.delete(
                instance,
                etag=etag,
                reason=reason,
                cascade=cascade,
                validate_only=validate_only,
                preview_etag=preview_etag,
                dry_run=dry_run,
            )
        )

    def preview_deletion(
        self, instance: InstanceLike, *, cascade: bool = False, etag: str = ""
    ) -> api.PreviewDeletionResponse:
        """Return everything that `delete` would delete, in order; change nothing."""
        return self._loop.run(self._target.preview_deletion(instance, cascade=cascade, etag=etag))

    def data_removals(self) -> Sequence[removal_api.DataRemoval]:
        """Return the deleted instances whose data still exists, in the order of their deletion."""
        return self._loop.run(self._target.data_removals())

    def rehearse(self, changes: Sequence[api.Change]) -> Sequence[api.ChangeVerdict]:
        """Check changes, each on top of the changes before it; change nothing.

        If time is short, only the first changes are checked; the verdicts of the others have `is_not_judged`.

        Raises:
            InvalidArgumentError: REHEARSAL_TOO_LONG; there was not even time for one.
        """
        return self._loop.run(self._target.rehearse(changes))

    def pause(self, instance: InstanceLike, *, etag: str = "", reason: str = "") -> instance_pb2.Instance:
        """Stop scheduled runs."""
        return self._loop.run(self._target.pause(instance, etag=etag, reason=reason))

    def resume(self, instance: InstanceLike, *, etag: str = "", reason: str = "") -> instance_pb2.Instance:
        """Start scheduled runs again."""
        return self._loop.run(self._target.resume(instance, etag=etag, reason=reason))

    def revisions(self, instance: InstanceLike) -> Sequence[instance_pb2.InstanceRevision]:
        """Return all revisions, newest first."""
        return self._loop.run(self._target.revisions(instance))

    def diff(
        self, instance: InstanceLike, from_revision: int, to_revision: int = 0
    ) -> Sequence[api.FieldChange]:
        """Return every field that differs between two revisions, sorted by path; 0 means the newest."""
        return self._loop.run(self._target.diff(instance, from_revision, to_revision))

    def wait_until_active(self, instance: InstanceLike, timeout: float = 60) -> instance_pb2.Instance:
        """Wait until every outside system has what the instance needs; return the instance.

        Raises:
            TimeoutError: It took longer.
        """
        return self._loop.run(self._target.wait_until_active(instance, timeout))
