"""Read instances and their revisions, each answer from one snapshot; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

from instance_service.domain import errors
from instance_service.domain.revision_diff import ABSENT, differences
from instance_service.resources.conversion import timestamp
from instance_service.store import instances as store
from instance_service.store import listing
from instance_service.store.tables import Row
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.instance_pb2 import Instance, InstanceKind, InstanceState
from optaic.instance.v1.instance_service_pb2 import (
    BatchGetInstancesRequest,
    BatchGetInstancesResponse,
    DiffInstanceRevisionsRequest,
    DiffInstanceRevisionsResponse,
    FieldChange,
    GetInstanceRequest,
    ListInstanceRevisionsRequest,
    ListInstanceRevisionsResponse,
    ListInstancesRequest,
    ListInstancesResponse,
)
from optaic.rules.pages import DEFAULT_SIZE
from redaction import redact_field
from servicekit import off_loop, pages
from servicekit.context import RequestContext
from servicekit.enums import enum_word

_Instances = TypeVar("_Instances", BatchGetInstancesResponse, ListInstancesResponse)
_MOST_BYTES = 15_000_000  # of an answer without pages; our clients accept 16 megabytes


async def get_instance(deps: Dependencies, tenant_id: str, request: GetInstanceRequest) -> Instance:
    """Return an instance in its newest state, or at a given revision.

    Raises:
        NotFoundError: The instance or revision does not exist.
    """
    instance_id = request.instance_id.lower()
    if not request.revision:
        found = await store.fetch_snapshots(deps.database, tenant_id, [instance_id])
        snapshot = found.get(instance_id)
    else:
        async with deps.database.read(tenant_id) as connection:
            snapshot = await store.get_revision(connection, tenant_id, instance_id, request.revision)
            if snapshot is None and await store.get_snapshot(connection, tenant_id, instance_id) is not None:
                raise errors.revision_not_found(instance_id, request.revision)
    if snapshot is None:
        raise errors.instances_not_found([instance_id])
    return await off_loop.run_if_large(len(snapshot), Instance.FromString, snapshot)


async def diff_revisions(
    deps: Dependencies, tenant_id: str, request: DiffInstanceRevisionsRequest
) -> DiffInstanceRevisionsResponse:
    """Return every field that differs between two revisions.

    Raises:
        NotFoundError: The instance or a revision does not exist.
    """
    instance_id = request.instance_id
    before, after = [
        await get_instance(deps, tenant_id, GetInstanceRequest(instance_id=instance_id, revision=revision))
        for revision in (request.from_revision, request.to_revision)
    ]
    return await off_loop.run(_diff, before, after)


def _diff(before: Instance, after: Instance) -> DiffInstanceRevisionsResponse:
    found = differences(*(MessageToDict(one, preserving_proto_field_name=True) for one in (before, after)))
    return DiffInstanceRevisionsResponse(
        changes=[
            FieldChange(
                path=one.path, from_value=_value(one.path, one.before), to_value=_value(one.path, one.after)
            )
            for one in found
        ]
    )


def _value(path: str, given: Any) -> Value | None:
    return None if given is ABSENT else ParseDict(redact_field(path, given), Value())


async def load_instances(
    deps: Dependencies, tenant_id: str, instance_ids: Sequence[str]
) -> dict[str, Instance]:
    """Return the instances that exist among the requested ones."""
    async with deps.database.read(tenant_id) as connection:
        found = await store.get_snapshots(connection, tenant_id, instance_ids)
    return {instance_id: Instance.FromString(snapshot) for instance_id, snapshot in found.items()}


async def batch_get_instances(
    deps: Dependencies, tenant_id: str, request: BatchGetInstancesRequest
) -> BatchGetInstancesResponse:
    """Return several instances in the requested order.

    Raises:
        NotFoundError: An instance does not exist; every missing id is named.
        InvalidArgumentError: Together they exceed the maximum size of an answer.
    """
    ids = [instance_id.lower() for instance_id in request.instance_ids]
    found = await store.fetch_snapshots(deps.database, tenant_id, ids)
    if missing := [instance_id for instance_id in ids if instance_id not in found]:
        raise errors.instances_not_found(missing)
    size = sum(len(found[instance_id]) for instance_id in ids)
    if size > _MOST_BYTES:
        raise errors.answer_too_large(len(ids), size, _MOST_BYTES)
    return await off_loop.run_if_large(
        size,
        _instances_of,
        (found[instance_id] for instance_id in ids),
        BatchGetInstancesResponse(),
    )


async def list_instances(
    deps: Dependencies, context: RequestContext, request: ListInstancesRequest
) -> ListInstancesResponse:
    """Return a page of the instances that the caller may read, in the order of their names."""
    tenant_id = context.tenant_id
    kinds = sorted({enum_word(InstanceKind, kind) for kind in request.kinds})
    labels = dict(sorted(request.labels.items()))
    states = sorted({enum_word(InstanceState, state) for state in request.states})
    filters = (request.project_id, kinds, request.name, labels, states, request.owner, request.definition_id)
    tokens = pages.PageTokens(deps.signer, tenant_id, "ListInstances", *filters)
    wanted = listing.Selection(*filters, context.readable_projects)
    after = tokens.decode(request.page_token)
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        position = (after["name"], after["id"]) if after else None
        rows = await listing.list_instances(connection, tenant_id, wanted, position, size + 1)
    page = pages.fit(rows, size, lambda row: len(row.snapshot))
    response = await off_loop.run_if_large(
        sum(len(row.snapshot) for row in page),
        _instances_of,
        (row.snapshot for row in page),
        ListInstancesResponse(),
    )
    if len(rows) > len(page):
        last = page[-1]
        response.next_page_token = tokens.encode({"name": last.name, "id": last.instance_id})
    return response


def _instances_of(snapshots: Iterable[bytes], response: _Instances) -> _Instances:
    """Read instances into an answer, each in its place: a copy of many would let no other thread run."""
    for snapshot in snapshots:
        response.instances.add().MergeFromString(snapshot)
    return response


def _revisions_of(rows: Iterable[Row]) -> ListInstanceRevisionsResponse:
    response = ListInstanceRevisionsResponse()
    for row in rows:
        revision = response.revisions.add(
            author=row.author, reason=row.reason, create_time=timestamp(row.create_time)
        )
        revision.instance.MergeFromString(row.snapshot)
    return response


async def list_revisions(
    deps: Dependencies, tenant_id: str, request: ListInstanceRevisionsRequest
) -> ListInstanceRevisionsResponse:
    """Return a page of revisions, newest first.

    Raises:
        NotFoundError: The instance does not exist.
    """
    instance_id = request.instance_id.lower()
    tokens = pages.PageTokens(deps.signer, tenant_id, "ListInstanceRevisions", instance_id)
    before = tokens.decode(request.page_token).get("revision")
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        rows = await store.list_revisions(connection, tenant_id, instance_id, before, size + 1)
    if not rows and before is None:
        raise errors.instances_not_found([instance_id])
    page = pages.fit(rows, size, lambda row: len(row.snapshot))
    response = await off_loop.run_if_large(sum(len(row.snapshot) for row in page), _revisions_of, page)
    if len(rows) > len(page):
        response.next_page_token = tokens.encode({"revision": page[-1].revision})
    return response
