"""Answer what clients read: statuses, their history and the watch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.rules.pages import DEFAULT_SIZE
from optaic.status.v1 import status_pb2
from optaic.status.v1.status_service_pb2 import WatchInstanceStatusesRequest, WatchInstanceStatusesResponse
from servicekit import pages
from servicekit.enums import enum_number
from status_service import conversion, store
from status_service.domain.errors import flow_not_found, instances_not_found
from status_service.use_cases.dependencies import Dependencies

_SNAPSHOT_PAGE = 500


async def get_statuses(
    deps: Dependencies, tenant_id: str, instance_ids: Sequence[str]
) -> list[status_pb2.InstanceStatus]:
    """Return the statuses in the order asked for.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND, naming every missing id.
    """
    async with deps.database.read(tenant_id) as connection:
        rows = await store.get_statuses(connection, tenant_id, set(instance_ids))
    missing = set(instance_ids) - set(rows)
    if missing:
        raise instances_not_found(missing)
    return [_stamped(rows[instance_id]) for instance_id in instance_ids]


async def get_flow_status(
    deps: Dependencies, tenant_id: str, instance_id: str, flow_kind: str
) -> status_pb2.FlowStatus:
    """Return the status of one flow.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND or FLOW_NOT_FOUND.
    """
    (status,) = await get_statuses(deps, tenant_id, [instance_id])
    wanted = enum_number(FlowKind, flow_kind)
    for flow in status.flows:
        if flow.flow_kind == wanted:
            return flow
    raise flow_not_found(instance_id, flow_kind)


async def list_statuses(
    deps: Dependencies,
    tenant_id: str,
    *,
    project_id: str,
    statuses: Sequence[str],
    kinds: Sequence[str],
    page_size: int,
    page_token: str,
    only: Collection[str] | None = None,
) -> tuple[list[status_pb2.InstanceStatus], str]:
    """Return a page of statuses and the token of the next one; with `only`, of no other projects than these."""
    tokens = pages.PageTokens(
        deps.signer, tenant_id, "ListInstanceStatuses", project_id, sorted(statuses), sorted(kinds)
    )
    after = str(tokens.decode(page_token)["after"]) if page_token else ""
    size = page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        rows = await store.list_statuses(
            connection,
            tenant_id,
            size + 1,
            after=after,
            project_id=project_id,
            statuses=statuses,
            kinds=kinds,
            only=only,
        )
    more = tokens.encode({"after": rows[size - 1].instance_id}) if len(rows) > size else ""
    return [_stamped(row) for row in rows[:size]], more


async def list_transitions(
    deps: Dependencies,
    tenant_id: str,
    instance_id: str,
    page_size: int,
    page_token: str,
    *,
    tells_runs: bool = True,
) -> tuple[list[status_pb2.StatusTransition], str]:
    """Return a page of an instance's history, newest first, and the token of the next one.

    Without `tells_runs` it does not name the runs, which may be those of another project.
    """
    tokens = pages.PageTokens(deps.signer, tenant_id, "GetStatusHistory", instance_id)
    before = int(tokens.decode(page_token)["before"]) if page_token else None
    size = page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        rows = await store.list_transitions(connection, tenant_id, instance_id, before, size + 1)
    more = tokens.encode({"before": rows[size - 1].revision}) if len(rows) > size else ""
    transitions = [
        conversion.transition(
            row.instance_id,
            row.from_status,
            row.to_status,
            row.revision,
            row.create_time,
            row.caused_by_run_id if tells_runs else "",
        )
        for row in rows[:size]
    ]
    return transitions, more


async def watch_statuses(
    deps: Dependencies,
    tenant_id: str,
    request: WatchInstanceStatusesRequest,
    only: Collection[str] | None = None,
) -> AsyncIterator[WatchInstanceStatusesResponse]:
    """Yield the statuses asked for, then every change of them in order, and a bookmark when none came for a while.

    With `only`, the statuses of other projects than these are left out.

    Raises:
        OutOfRangeError: REVISION_COMPACTED; the log does not reach back to the revision.
        ResourceExhaustedError: WATCHER_TOO_SLOW; more changes came than may wait.
    """
    seen: dict[str, int] = {}
    if request.HasField("from_revision"):
        position = request.from_revision
    else:
        async with deps.database.read(tenant_id) as connection:
            position = (await store.get_revisions(connection, tenant_id)).revision
        async for row in _snapshot(deps, tenant_id, request, only):
            if row.revision > position:
                seen[row.instance_id] = row.revision  # changed while the snapshot was read
            yield WatchInstanceStatusesResponse(instance_status=_stamped(row), is_initial=True)
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
                    instance_status=conversion.stamped(change.body, change.revision, change.update_time),
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
) -> AsyncIterator[store.StatusRow]:
    """Yield all statuses asked for, page by page, because a slow reader must not hold a transaction."""
    after = ""
    while True:
        async with deps.database.read(tenant_id) as connection:
            rows = await store.list_statuses(
                connection,
                tenant_id,
                _SNAPSHOT_PAGE,
                after=after,
                project_id=request.project_id,
                instance_ids=request.instance_ids,
                only=only,
            )
        for row in rows:
            yield row
        if len(rows) < _SNAPSHOT_PAGE:
            return
        after = rows[-1].instance_id


def _concerns(change: store.ChangeRow, instance_ids: frozenset[str], project_id: str) -> bool:
    return (not instance_ids or change.instance_id in instance_ids) and (
        not project_id or change.project_id == project_id
    )


def _stamped(row: store.StatusRow) -> status_pb2.InstanceStatus:
    return conversion.stamped(row.body, row.revision, row.update_time)


async def locate(deps: Dependencies, tenant_id: str, ids: Collection[str]) -> Mapping[str, str]:
    """Return the project of each id that is an instance's or a project's."""
    async with deps.database.read(tenant_id) as connection:
        return await store.locate(connection, tenant_id, ids)
