"""Answer what clients read: statuses, their history and the watch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.status.v1 import status_pb2
from optaic.status.v1.status_service_pb2 import (
    BatchGetInstanceStatusesRequest,
    BatchGetInstanceStatusesResponse,
    GetFlowStatusRequest,
    GetInstanceStatusRequest,
    WatchInstanceStatusesRequest,
    WatchInstanceStatusesResponse,
)
from servicekit.context import RequestContext
from servicekit.enums import enum_word
from status_service import conversion
from status_service.domain.errors import flow_not_found, instances_not_found
from status_service.store.changes import ChangeRow, get_revisions
from status_service.store.listing import Selection, list_statuses
from status_service.store.statuses import ShownStatus, StatusRow, fetch_statuses, locate_instances
from status_service.use_cases.dependencies import Dependencies

_SNAPSHOT_PAGE = 500


async def get_instance_status(
    deps: Dependencies, tenant_id: str, request: GetInstanceStatusRequest
) -> status_pb2.InstanceStatus:
    """Return the status of one instance.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND.
    """
    return await _load_status(deps, tenant_id, request.instance_id)


async def batch_get_instance_statuses(
    deps: Dependencies, tenant_id: str, request: BatchGetInstanceStatusesRequest
) -> BatchGetInstanceStatusesResponse:
    """Return the statuses of instances in the order asked for.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND, naming every missing id.
    """
    rows = await fetch_statuses(deps.database, tenant_id, set(request.instance_ids))
    missing = set(request.instance_ids) - set(rows)
    if missing:
        raise instances_not_found(missing)
    statuses = [stamped(rows[instance_id]) for instance_id in request.instance_ids]
    return BatchGetInstanceStatusesResponse(instance_statuses=statuses)


async def _load_status(deps: Dependencies, tenant_id: str, instance_id: str) -> status_pb2.InstanceStatus:
    row = await deps.shared_reads.fetch_status(tenant_id, instance_id)
    if row is None:
        raise instances_not_found({instance_id})
    return stamped(row)


async def get_flow_status(
    deps: Dependencies, tenant_id: str, request: GetFlowStatusRequest
) -> status_pb2.FlowStatus:
    """Return the status of one flow.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND or FLOW_NOT_FOUND.
    """
    wanted = request.flow
    status = await _load_status(deps, tenant_id, wanted.instance_id)
    for flow in status.flows:
        if flow.flow_kind == wanted.flow_kind:
            return flow
    raise flow_not_found(wanted.instance_id, enum_word(FlowKind, wanted.flow_kind))


async def watch_instance_statuses(
    deps: Dependencies, context: RequestContext, request: WatchInstanceStatusesRequest
) -> AsyncIterator[WatchInstanceStatusesResponse]:
    """Yield the statuses asked for, then every change of them in order, and a bookmark when none came for a while.

    The statuses of projects that the caller may not read are left out.

    Raises:
        OutOfRangeError: REVISION_COMPACTED; the log does not reach back to the revision.
        ResourceExhaustedError: WATCHER_TOO_SLOW; more changes came than may wait.
    """
    tenant_id, only = context.tenant_id, context.readable_projects
    seen: dict[str, int] = {}
    if request.HasField("from_revision"):
        position = request.from_revision
    else:
        async with deps.database.read(tenant_id) as connection:
            position = (await get_revisions(connection, tenant_id)).revision
        async for row in _snapshot(deps, tenant_id, request, only):
            if row.revision > position:
                seen[row.instance_id] = row.revision  # changed while the snapshot was read
            yield WatchInstanceStatusesResponse(instance_status=stamped(row), is_initial=True)
        yield WatchInstanceStatusesResponse(revision=position)
    instance_ids = frozenset(request.instance_ids)
    async for changes in deps.feed.read_after(tenant_id, position):
        if not changes:  # a bookmark
            yield WatchInstanceStatusesResponse(revision=position)
            continue
        sent = position
        for change in changes:
            is_new = change.revision > seen.get(change.instance_id, 0)
            is_within = only is None or change.project_id in only
            if is_new and is_within and _concerns(change, instance_ids, request.project_id):
                sent = change.revision
                yield WatchInstanceStatusesResponse(
                    revision=change.revision,
                    instance_status=conversion.stamped(
                        change.body, change.revision, change.update_time, change.since_time
                    ),
                    is_deleted=change.is_deleted,
                )
        position = changes[-1].revision
        if sent != position:
            yield WatchInstanceStatusesResponse(revision=position)


async def _snapshot(
    deps: Dependencies,
    tenant_id: str,
    request: WatchInstanceStatusesRequest,
    only: Collection[str] | None,
) -> AsyncIterator[StatusRow]:
    """Yield all statuses asked for, page by page, because a slow reader must not hold a transaction."""
    wanted = Selection(project_id=request.project_id, instance_ids=request.instance_ids, only=only)
    after = ""
    while True:
        async with deps.database.read(tenant_id) as connection:
            rows = await list_statuses(connection, tenant_id, wanted, _SNAPSHOT_PAGE, after)
        for row in rows:
            yield row
        if len(rows) < _SNAPSHOT_PAGE:
            return
        after = rows[-1].instance_id


def _concerns(change: ChangeRow, instance_ids: frozenset[str], project_id: str) -> bool:
    return (not instance_ids or change.instance_id in instance_ids) and (
        not project_id or change.project_id == project_id
    )


def stamped(row: StatusRow | ShownStatus) -> status_pb2.InstanceStatus:
    """Return a stored status as callers see it."""
    return conversion.stamped(row.body, row.revision, row.update_time, row.since_time)


async def locate(deps: Dependencies, tenant_id: str, ids: Collection[str]) -> Mapping[str, str]:
    """Return the project of each id that is an instance's or a project's."""
    async with deps.database.read(tenant_id) as connection:
        return await locate_instances(connection, tenant_id, ids)
