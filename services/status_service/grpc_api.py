"""The RPCs of StatusService: parse, ask, convert; no rule lives here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from optaic.common.v1.flow_pb2 import FlowKind, Status
from optaic.instance.v1.instance_pb2 import InstanceKind
from optaic.status.v1 import status_pb2
from optaic.status.v1 import status_service_pb2 as api
from optaic.status.v1.status_service_pb2_grpc import StatusServiceServicer
from servicekit import context
from servicekit.enums import enum_number, enum_word
from status_service import conversion, store
from status_service.use_cases import reading
from status_service.use_cases.dependencies import Dependencies

_SNAPSHOT_PAGE = 500


class StatusServicer(StatusServiceServicer):
    """The service StatusService, which answers from the read model of the caller's tenant."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def GetInstanceStatus(
        self, request: api.GetInstanceStatusRequest, _context: Any
    ) -> status_pb2.InstanceStatus:
        tenant_id = context.current().tenant_id
        (status,) = await reading.get_statuses(self._deps, tenant_id, [request.instance_id])
        return status

    async def BatchGetInstanceStatuses(
        self, request: api.BatchGetInstanceStatusesRequest, _context: Any
    ) -> api.BatchGetInstanceStatusesResponse:
        tenant_id = context.current().tenant_id
        statuses = await reading.get_statuses(self._deps, tenant_id, request.instance_ids)
        return api.BatchGetInstanceStatusesResponse(instance_statuses=statuses)

    async def ListInstanceStatuses(
        self, request: api.ListInstanceStatusesRequest, _context: Any
    ) -> api.ListInstanceStatusesResponse:
        statuses, token = await reading.list_statuses(
            self._deps,
            context.current().tenant_id,
            project_id=request.project_id,
            statuses=[enum_word(Status, status).upper() for status in request.statuses],
            kinds=[enum_word(InstanceKind, kind) for kind in request.kinds],
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return api.ListInstanceStatusesResponse(instance_statuses=statuses, next_page_token=token)

    async def GetFlowStatus(self, request: api.GetFlowStatusRequest, _context: Any) -> status_pb2.FlowStatus:
        kind = enum_word(FlowKind, request.flow.flow_kind)
        tenant_id = context.current().tenant_id
        return await reading.get_flow_status(self._deps, tenant_id, request.flow.instance_id, kind)

    async def GetStatusHistory(
        self, request: api.GetStatusHistoryRequest, _context: Any
    ) -> api.GetStatusHistoryResponse:
        rows, token = await reading.list_transitions(
            self._deps,
            context.current().tenant_id,
            request.instance_id,
            request.page_size,
            request.page_token,
        )
        return api.GetStatusHistoryResponse(
            transitions=[_transition(row) for row in rows], next_page_token=token
        )

    async def WatchInstanceStatuses(
        self, request: api.WatchInstanceStatusesRequest, _context: Any
    ) -> AsyncIterator[api.WatchInstanceStatusesResponse]:
        tenant_id = context.current().tenant_id
        seen: dict[str, int] = {}
        if request.HasField("from_revision"):
            position = request.from_revision
        else:
            async with self._deps.database.read(tenant_id) as connection:
                position = (await store.get_revisions(connection, tenant_id)).revision
            async for row in self._snapshot(tenant_id, request):
                if row.revision > position:
                    seen[row.instance_id] = row.revision  # changed while the snapshot was read
                status = conversion.stamped(row.body, row.revision, row.update_time)
                yield api.WatchInstanceStatusesResponse(instance_status=status, is_initial=True)
            yield api.WatchInstanceStatusesResponse(revision=position)
        instance_ids = frozenset(request.instance_ids)
        async for changes in self._deps.feed.read_after(tenant_id, position):
            if not changes:  # a bookmark
                yield api.WatchInstanceStatusesResponse(revision=position)
                continue
            sent = position
            for change in changes:
                if _concerns(change, instance_ids, request.project_id) and change.revision > seen.get(
                    change.instance_id, 0
                ):
                    sent = change.revision
                    yield api.WatchInstanceStatusesResponse(
                        revision=change.revision,
                        instance_status=conversion.stamped(change.body, change.revision, change.update_time),
                        is_deleted=change.is_deleted,
                    )
            position = changes[-1].revision
            if sent != position:
                yield api.WatchInstanceStatusesResponse(revision=position)

    async def _snapshot(
        self, tenant_id: str, request: api.WatchInstanceStatusesRequest
    ) -> AsyncIterator[store.StatusRow]:
        """Yield all statuses asked for; page by page, because a slow reader must not hold a transaction."""
        after = ""
        while True:
            async with self._deps.database.read(tenant_id) as connection:
                rows = await store.list_statuses(
                    connection,
                    tenant_id,
                    _SNAPSHOT_PAGE,
                    after=after,
                    project_id=request.project_id,
                    instance_ids=request.instance_ids,
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


def _transition(row: store.TransitionRow) -> status_pb2.StatusTransition:
    transition = status_pb2.StatusTransition(
        instance_id=row.instance_id,
        from_status=enum_number(Status, row.from_status.lower()),
        to_status=enum_number(Status, row.to_status.lower()),
        revision=row.revision,
        caused_by_run_id=row.caused_by_run_id,
    )
    transition.create_time.FromDatetime(row.create_time)
    return transition
