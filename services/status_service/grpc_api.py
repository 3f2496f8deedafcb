"""The RPCs of status-service: each calls one use case."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from optaic.common.v1.flow_pb2 import FlowKind, Status
from optaic.instance.v1.instance_pb2 import InstanceKind
from optaic.status.v1 import status_pb2
from optaic.status.v1 import status_service_pb2 as api
from optaic.status.v1.status_service_pb2_grpc import StatusServiceServicer
from servicekit import context
from servicekit.enums import enum_word
from status_service.use_cases import reading
from status_service.use_cases.dependencies import Dependencies


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
            only=context.current().readable_projects,
        )
        return api.ListInstanceStatusesResponse(instance_statuses=statuses, next_page_token=token)

    async def GetFlowStatus(self, request: api.GetFlowStatusRequest, _context: Any) -> status_pb2.FlowStatus:
        kind = enum_word(FlowKind, request.flow.flow_kind)
        tenant_id = context.current().tenant_id
        return await reading.get_flow_status(self._deps, tenant_id, request.flow.instance_id, kind)

    async def GetStatusHistory(
        self, request: api.GetStatusHistoryRequest, _context: Any
    ) -> api.GetStatusHistoryResponse:
        transitions, token = await reading.list_transitions(
            self._deps,
            context.current().tenant_id,
            request.instance_id,
            request.page_size,
            request.page_token,
            tells_runs=not context.current().is_confined,
        )
        return api.GetStatusHistoryResponse(transitions=transitions, next_page_token=token)

    async def WatchInstanceStatuses(
        self, request: api.WatchInstanceStatusesRequest, _context: Any
    ) -> AsyncIterator[api.WatchInstanceStatusesResponse]:
        caller = context.current()
        async for response in reading.watch_statuses(
            self._deps, caller.tenant_id, request, caller.readable_projects
        ):
            yield response
