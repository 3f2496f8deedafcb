"""A time limit changes no output: whoever sets, changes or removes one makes nothing stale."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from devstack.postgres import Postgres
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH, STATUS_READY, FlowRef
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1.instance_service_pb2 import GetInstanceRequest, UpdateInstanceRequest
from optaic.lineage.v1 import lineage_service_pb2 as lineage_api
from optaic.status.v1.status_service_pb2 import GetInstanceStatusRequest
from support.control_plane import ControlPlane, control_plane
from support.polling import eventually


async def _run(plane: ControlPlane, instance: instance_pb2.Instance) -> None:
    """Let an instance run, and complete."""
    run = await plane.run.submit(instance)

    async def dispatched() -> str:
        return (await plane.run.get(run.run_id)).orchestrator_run_id

    started = await plane.run.start(run.run_id, await eventually(dispatched))
    await plane.run.complete(run.run_id, started.fencing_token)
    await plane.rest()


async def _facts(plane: ControlPlane, instance_id: str) -> dict[str, Any]:
    """Return what instance-service, lineage-service and status-service say of an instance's flow."""
    found = await plane.instance.instances.GetInstance(GetInstanceRequest(instance_id=instance_id))
    flow = FlowRef(instance_id=instance_id, flow_kind=FLOW_KIND_REFRESH)
    state = await plane.lineage.stub.GetFlowState(lineage_api.GetFlowStateRequest(flow=flow))
    status = await plane.status.stub.GetInstanceStatus(GetInstanceStatusRequest(instance_id=instance_id))
    return {
        "fingerprints": [each.compute_fingerprint for each in found.flows],
        "fresh": state.is_fresh,
        "causes": list(state.causes),
        "lineage": (state.status, state.current_version.version),
        "status": (status.status, [(each.status, each.version, each.is_fresh) for each in status.flows]),
    }


async def test_a_time_limit_leaves_fingerprints_statuses_and_freshness_as_they_are(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    async with control_plane(nats_url) as plane:
        project = (await plane.instance.project()).project_id
        prices = await plane.instance.prices(project, "prices")
        derived = await plane.instance.derived(project, "derived", prices.instance_id)
        await plane.rest()
        for each in (prices, derived):
            await _run(plane, each)
        before = {each.instance_id: await _facts(plane, each.instance_id) for each in (prices, derived)}
        assert all(facts["fresh"] and facts["status"][0] == STATUS_READY for facts in before.values())
        revision = 0
        for timeout in (Duration(seconds=3600), Duration(seconds=1), None):
            changed = instance_pb2.Instance(instance_id=prices.instance_id)
            changed.schedule.manual.SetInParent()
            if timeout is not None:
                changed.schedule.timeout.CopyFrom(timeout)
            answer = await plane.instance.instances.UpdateInstance(
                UpdateInstanceRequest(instance=changed, update_mask=FieldMask(paths=["schedule"]))
            )
            assert answer.schedule.HasField("timeout") is (timeout is not None)
            assert answer.revision > revision, "the limit is stored"
            revision = answer.revision
            await plane.rest()
            for instance_id, facts in before.items():
                assert await _facts(plane, instance_id) == facts
