"""Accept an instance or a flow as a message, an id or a pair; calls only GetInstance."""

from __future__ import annotations

from typing import Any

from optaic import errors
from optaic.client.connection import Connection
from optaic.client.messages import flow_kind as parse_flow_kind
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2, instance_service_pb2
from optaic.instance.v1.instance_service_pb2_grpc import InstanceServiceStub

InstanceLike = instance_pb2.Instance | str
FlowLike = InstanceLike | flow_pb2.FlowRef


def id_of(instance: Any) -> str:
    """Return the id of an instance, or of anything else that has one."""
    return instance if isinstance(instance, str) else str(instance.instance_id)


async def flow_of(
    connection: Connection, flow: FlowLike, flow_kind: str | int | None = None
) -> flow_pb2.FlowRef:
    """Return the flow that is meant: the one named, else the instance's first that is not its monitoring."""
    if isinstance(flow, flow_pb2.FlowRef):
        return flow
    instance_id = id_of(flow)
    if flow_kind is not None:
        return flow_pb2.FlowRef(instance_id=instance_id, flow_kind=parse_flow_kind(flow_kind))
    kinds = [each.flow_kind for each in flow.flows] if isinstance(flow, instance_pb2.Instance) else []
    if not kinds:
        request = instance_service_pb2.GetInstanceRequest(instance_id=instance_id)
        try:
            found = await connection.call("instance", InstanceServiceStub, "GetInstance", request)
            kinds = [each.flow_kind for each in found.flows]
        except errors.NotFoundError:
            kinds = []  # the service that is asked about the flow says that there is none
    working = [kind for kind in kinds if kind != flow_pb2.FLOW_KIND_MONITORING]
    return flow_pb2.FlowRef(
        instance_id=instance_id, flow_kind=next(iter([*working, *kinds]), flow_pb2.FLOW_KIND_REFRESH)
    )
