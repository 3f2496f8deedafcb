"""The RPCs of status-service: each calls one use case."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from optaic.status.v1 import status_service_pb2 as api
from optaic.status.v1.status_pb2 import FlowStatus, InstanceStatus
from optaic.status.v1.status_service_pb2_grpc import StatusServiceServicer
from servicekit.context import current
from status_service.use_cases import history_reading, list_reading, reading, realtime
from status_service.use_cases.dependencies import Dependencies


class StatusServicer(StatusServiceServicer):
    """The service optaic.status.v1.StatusService."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def GetInstanceStatus(self, request: api.GetInstanceStatusRequest, _context: Any) -> InstanceStatus:
        return await reading.get_instance_status(self._deps, current().tenant_id, request)

    async def BatchGetInstanceStatuses(
        self, request: api.BatchGetInstanceStatusesRequest, _context: Any
    ) -> api.BatchGetInstanceStatusesResponse:
        return await reading.batch_get_instance_statuses(self._deps, current().tenant_id, request)

    async def ListInstanceStatuses(
        self, request: api.ListInstanceStatusesRequest, _context: Any
    ) -> api.ListInstanceStatusesResponse:
        return await list_reading.list_instance_statuses(self._deps, current(), request)

    async def GetFlowStatus(self, request: api.GetFlowStatusRequest, _context: Any) -> FlowStatus:
        return await reading.get_flow_status(self._deps, current().tenant_id, request)

    async def GetStatusHistory(
        self, request: api.GetStatusHistoryRequest, _context: Any
    ) -> api.GetStatusHistoryResponse:
        return await history_reading.get_status_history(self._deps, current(), request)

    async def ListInstanceAvailability(
        self, request: api.ListInstanceAvailabilityRequest, _context: Any
    ) -> api.ListInstanceAvailabilityResponse:
        return await history_reading.list_instance_availability(self._deps, current(), request)

    async def WatchInstanceStatuses(
        self, request: api.WatchInstanceStatusesRequest, _context: Any
    ) -> AsyncIterator[api.WatchInstanceStatusesResponse]:
        async for response in reading.watch_instance_statuses(self._deps, current(), request):
            yield response

    async def CreateRealtimeToken(
        self, request: api.CreateRealtimeTokenRequest, _context: Any
    ) -> api.CreateRealtimeTokenResponse:
        return await realtime.create_realtime_token(self._deps, current(), request)
