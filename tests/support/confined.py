"""An actor whom bindings of roles confine to projects, for tests: two projects, and what it may do in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from optaic.common.v1 import access_pb2
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH, FlowRef
from optaic.definition.v1.definition_service_pb2_grpc import DefinitionServiceStub
from optaic.instance.v1 import access_service_pb2 as access_api
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.instance.v1.access_service_pb2_grpc import AccessServiceStub
from optaic.lineage.v1 import lineage_service_pb2 as lineage_api
from optaic.run.v1 import run_service_pb2 as run_api
from optaic.status.v1 import status_service_pb2 as status_api
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from support.control_plane import ControlPlane
from support.identities import caller
from support.polling import eventually

ACTOR = "researcher"
ME = caller(ACTOR)
DENIED, MISSING = "PERMISSION_DENIED", "NOT_FOUND"
Call = Callable[[], Awaitable[Any]]


class World:
    """Two projects with an instance each, the actor whom the bindings concern, and an administrator."""

    def __init__(self, plane: ControlPlane, channel: Any, nats_url: str) -> None:
        self.plane = plane
        self.nats_url = nats_url
        self.access: Any = AccessServiceStub(channel)
        self.definitions: Any = DefinitionServiceStub(channel)
        self.mine = self.other = ""
        self.my_instance = self.other_instance = ""

    async def prepare(self) -> None:
        service = self.plane.instance
        self.mine, self.other = [(await service.project(f"project-{new_id()}")).project_id for _ in range(2)]
        self.my_instance = (await service.prices(self.mine)).instance_id
        self.other_instance = (await service.prices(self.other)).instance_id

    async def grant(self, role: str, project_id: str = "", actor: str = ACTOR) -> Any:
        request = access_api.GrantRoleRequest(
            actor=actor, project_id=project_id, role=access_pb2.Role.Value(f"ROLE_{role.upper()}")
        )
        return await self.access.GrantRole(request)

    async def revoke(self, project_id: str = "", actor: str = ACTOR) -> Any:
        return await self.access.RevokeRole(access_api.RevokeRoleRequest(actor=actor, project_id=project_id))

    def get(self, instance_id: str) -> Call:
        request = instance_api.GetInstanceRequest(instance_id=instance_id)
        return lambda: self.plane.instance.instances.GetInstance(request, metadata=ME)

    def status(self, instance_id: str) -> Call:
        request = status_api.GetInstanceStatusRequest(instance_id=instance_id)
        return lambda: self.plane.status.stub.GetInstanceStatus(request, metadata=ME)

    def lineage(self, instance_id: str) -> Call:
        request = lineage_api.GetFlowStateRequest(
            flow=FlowRef(instance_id=instance_id, flow_kind=FLOW_KIND_REFRESH)
        )
        return lambda: self.plane.lineage.stub.GetFlowState(request, metadata=ME)

    def runs(self, instance_id: str) -> Call:
        request = run_api.ListRunsRequest(instance_id=instance_id)
        return lambda: self.plane.run.runs.ListRuns(request, metadata=ME)

    def pause(self, instance_id: str) -> Call:
        request = instance_api.PauseInstanceRequest(instance_id=instance_id)
        return lambda: self.plane.instance.instances.PauseInstance(request, metadata=ME)


async def outcome(call: Call) -> str:
    """Return OK, or why a call was refused."""
    try:
        await call()
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).code
    return "OK"


async def becomes(call: Call, wanted: str, seconds: float = 5.0) -> None:
    async def is_so() -> bool:
        return await outcome(call) == wanted

    await eventually(is_so, seconds, wanted)
