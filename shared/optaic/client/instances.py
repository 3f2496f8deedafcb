"""Instances: configured uses of definitions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack, overload

import grpc

from optaic import errors
from optaic.client import messages
from optaic.client.definitions import all_pages
from optaic.client.deletions import list_data_removals, preview_deletion
from optaic.client.existence import near, require_definition, require_project
from optaic.client.instance_fields import InstanceChanges, InstanceFields
from optaic.client.promotions import Promotions
from optaic.client.references import InstanceLike, id_of
from optaic.definition.v1 import definition_pb2
from optaic.instance.v1 import data_removal_service_pb2 as removal_api
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as api
from optaic.rules.pages import LARGEST_SIZE

Upstreams = Mapping[str, InstanceLike | Sequence[InstanceLike]]
_BACKTEST_NAMES = ("assets_json", "signals_json", "date_range_json")
_POLL = 0.1
_REHEARSAL_SECONDS = 60.0


class Instances(Promotions):
    """The methods for instances: configured uses of definitions."""

    async def create(
        self,
        *,
        project: instance_pb2.Project | str,
        name: str,
        upstreams: Upstreams | None = None,
        validate_only: bool = False,
        reason: str = "",
        request_id: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - the call's deadline, which the service sees too
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
        instance = instance_pb2.Instance(name=name)
        instance.project_id = project if isinstance(project, str) else project.project_id
        messages.fill(instance, _with_upstreams(_gather_backtest(fields), upstreams))
        request = api.CreateInstanceRequest(
            instance=instance, validate_only=validate_only, reason=reason, request_id=request_id
        )
        try:
            answer: instance_pb2.Instance = await self._call("CreateInstance", request, timeout)
        except errors.AlreadyExistsError as error:
            if not exist_ok or error.reason != "NAME_TAKEN":
                raise
            answer = await self.get_by_name(name, project=instance.project_id)
            if answer.WhichOneof("spec") != instance.WhichOneof("spec"):
                raise
        return answer

    async def get(self, instance: InstanceLike, *, revision: int = 0) -> instance_pb2.Instance:
        """Return an instance as it is, or as of a revision."""
        request = api.GetInstanceRequest(instance_id=id_of(instance), revision=revision)
        answer: instance_pb2.Instance = await self._call("GetInstance", request)
        return answer

    async def get_by_name(self, name: str, *, project: str = "") -> instance_pb2.Instance:
        """Return the one instance of a name.

        Raises:
            NotFoundError: There is none.
            FailedPreconditionError: AMBIGUOUS_NAME; several projects have one.
        """
        if not name:  # to the service it would mean all instances
            text = "there is no instance without a name; give its name or its id"
            raise errors.NotFoundError(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND", text)
        found = await self.list(project=project, name=name)
        if not found:
            listed = await self._call(
                "ListInstances", api.ListInstancesRequest(project_id=project, page_size=LARGEST_SIZE)
            )
            text = (
                f"there is no instance named {name!r}{near(name, [each.name for each in listed.instances])}"
            )
            raise errors.NotFoundError(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND", text)
        if len(found) > 1:
            ids = ", ".join(each.instance_id for each in found)
            raise errors.FailedPreconditionError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "AMBIGUOUS_NAME",
                f"several projects have an instance named {name!r}; name its project (--project on the command "
                f"line, `project` in Python), or use the id of one of them: {ids}",
            )
        return found[0]

    async def list(
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
        request = api.ListInstancesRequest(name=name, labels=labels, owner=owner, page_size=LARGEST_SIZE)
        request.project_id = project if isinstance(project, str) else project.project_id
        request.definition_id = definition if isinstance(definition, str) else definition.definition_id
        messages.fill(request, {"kinds": kinds, "states": states})

        async def page(request: Any) -> Any:
            return await self._call("ListInstances", request)

        found = await all_pages(page, request, "instances")
        if not found:  # a message proves that the resource exists
            await require_project(self._connection, project if isinstance(project, str) else "")
            await require_definition(self._connection, definition if isinstance(definition, str) else "")
        return found

    async def update(
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
        values = _with_upstreams({**(changes or {}), **fields}, upstreams)
        changed = instance_pb2.Instance(instance_id=id_of(instance), etag=etag)
        messages.fill(changed, values)
        request = api.UpdateInstanceRequest(instance=changed, validate_only=validate_only, reason=reason)
        request.update_mask.paths.extend(messages.paths(instance_pb2.Instance.DESCRIPTOR, values))
        answer: instance_pb2.Instance = await self._call("UpdateInstance", request)
        return answer

    @overload
    async def delete(
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
    async def delete(
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
    async def delete(
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

    async def delete(
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
        if dry_run:
            return (await self.preview_deletion(instance, cascade=cascade, etag=etag)).instances
        request = api.DeleteInstanceRequest(
            instance_id=id_of(instance),
            etag=etag,
            reason=reason,
            cascade=cascade,
            validate_only=validate_only,
            preview_etag=preview_etag,
        )
        answer: instance_pb2.Instance = await self._call("DeleteInstance", request)
        return answer

    async def preview_deletion(
        self, instance: InstanceLike, *, cascade: bool = False, etag: str = ""
    ) -> api.PreviewDeletionResponse:
        """Return everything that `delete` would delete, in order; change nothing."""
        deletion = api.DeleteInstanceRequest(instance_id=id_of(instance), cascade=cascade, etag=etag)
        return await preview_deletion(self._connection, api.PreviewDeletionRequest(delete_instance=deletion))

    async def data_removals(self) -> Sequence[removal_api.DataRemoval]:
        """Return the deleted instances whose data still exists, in the order of their deletion."""
        return await list_data_removals(self._connection)

    async def rehearse(self, changes: Sequence[api.Change]) -> Sequence[api.ChangeVerdict]:
        """Check changes, each on top of the changes before it; change nothing.

        If time is short, only the first changes are checked; the verdicts of the others have `is_not_judged`.

        Raises:
            InvalidArgumentError: REHEARSAL_TOO_LONG; there was not even time for one.
        """
        request = api.RehearseChangesRequest(changes=changes, allow_partial=True)
        answer: api.RehearseChangesResponse = await self._call("RehearseChanges", request, _REHEARSAL_SECONDS)
        return answer.verdicts

    async def pause(
        self, instance: InstanceLike, *, etag: str = "", reason: str = ""
    ) -> instance_pb2.Instance:
        """Stop scheduled runs."""
        request = api.PauseInstanceRequest(instance_id=id_of(instance), etag=etag, reason=reason)
        answer: instance_pb2.Instance = await self._call("PauseInstance", request)
        return answer

    async def resume(
        self, instance: InstanceLike, *, etag: str = "", reason: str = ""
    ) -> instance_pb2.Instance:
        """Start scheduled runs again."""
        request = api.ResumeInstanceRequest(instance_id=id_of(instance), etag=etag, reason=reason)
        answer: instance_pb2.Instance = await self._call("ResumeInstance", request)
        return answer

    async def revisions(self, instance: InstanceLike) -> Sequence[instance_pb2.InstanceRevision]:
        """Return all revisions, newest first."""
        request = api.ListInstanceRevisionsRequest(instance_id=id_of(instance), page_size=LARGEST_SIZE)

        async def page(request: Any) -> Any:
            return await self._call("ListInstanceRevisions", request)

        return await all_pages(page, request, "revisions")

    async def diff(
        self, instance: InstanceLike, from_revision: int, to_revision: int = 0
    ) -> Sequence[api.FieldChange]:
        """Return every field that differs between two revisions, sorted by path; 0 means the newest."""
        request = api.DiffInstanceRevisionsRequest(
            instance_id=id_of(instance), from_revision=from_revision, to_revision=to_revision
        )
        answer: api.DiffInstanceRevisionsResponse = await self._call("DiffInstanceRevisions", request)
        return answer.changes

    async def wait_until_active(
        self,
        instance: InstanceLike,
        timeout: float = 60,  # noqa: ASYNC109 - part of the public interface, as in `wait`
    ) -> instance_pb2.Instance:
        """Wait until every outside system has what the instance needs; return the instance.

        Raises:
            TimeoutError: It took longer.
        """
        async with asyncio.timeout(timeout):
            while True:
                found = await self.get(instance)
                if found.state == instance_pb2.INSTANCE_STATE_ACTIVE:
                    return found
                await asyncio.sleep(_POLL)


def _gather_backtest(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Move a backtest's other known field names (`assets_json`, ...) into its spec."""
    values = dict(fields)
    if any(name in values for name in _BACKTEST_NAMES):
        known = (*_BACKTEST_NAMES, "config_json")
        values["backtest"] = {
            **values.get("backtest", {}),
            **{n: values.pop(n) for n in known if n in values},
        }
    return values


def _with_upstreams(values: Mapping[str, Any], upstreams: Upstreams | None) -> dict[str, Any]:
    if upstreams is None:
        return dict(values)
    references = [
        {"resource_id": id_of(each), "role": role}
        for role, given in upstreams.items()
        for each in (given if isinstance(given, list | tuple) else [given])
    ]
    return {**values, "upstream_refs": [*values.get("upstream_refs", ()), *references]}
