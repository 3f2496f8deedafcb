"""The causes that status-service shows are those that lineage-service finds at that moment."""

from __future__ import annotations

from devstack.postgres import Postgres
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH, FlowRef
from optaic.instance.v1.instance_pb2 import Instance
from optaic.lineage.v1.lineage_service_pb2 import (
    AcceptStalenessRequest,
    GetFlowStateRequest,
    InvalidateFlowRequest,
    RevokeAcceptedStalenessRequest,
)
from optaic.status.v1.status_service_pb2 import GetInstanceStatusRequest
from support.control_plane import ControlPlane, control_plane
from support.polling import eventually


class Chain:
    """Datasets, each read by the next one."""

    def __init__(self, plane: ControlPlane, instances: list[Instance]) -> None:
        self.plane = plane
        self.instances = instances
        self._content = 0

    async def run(self, position: int) -> None:
        """Run one of them; what it writes is new."""
        run, self._content = self.plane.run, self._content + 1
        submitted = await run.submit(self.instances[position])

        async def dispatched() -> str:
            return (await run.get(submitted.run_id)).orchestrator_run_id

        started = await run.start(submitted.run_id, await eventually(dispatched))
        await run.complete(submitted.run_id, started.fencing_token, digest=f"content {self._content}")

    async def causes(self) -> list[list[str]]:
        """Return what each one's status says, once it is what lineage-service says."""
        await self.plane.rest()
        told = []
        for instance in self.instances:
            flow = FlowRef(instance_id=instance.instance_id, flow_kind=FLOW_KIND_REFRESH)
            state = await self.plane.lineage.stub.GetFlowState(GetFlowStateRequest(flow=flow))
            request = GetInstanceStatusRequest(instance_id=instance.instance_id)
            status = await self.plane.status.stub.GetInstanceStatus(request)
            assert status.flows[0].causes == state.causes
            told.append([cause.message for cause in state.causes])
        return told

    async def accepted(self, position: int) -> str:
        """Return why one's staleness is accepted, as its status says; empty if it is not."""
        request = GetInstanceStatusRequest(instance_id=self.instances[position].instance_id)
        status = await self.plane.status.stub.GetInstanceStatus(request)
        return str(status.flows[0].accepted_staleness.reason)


async def test_causes_of_a_status_change_with_its_upstreams(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with control_plane(nats_url) as plane:
        project = (await plane.instance.project()).project_id
        a = await plane.instance.prices(project, "a")
        b = await plane.instance.derived(project, "b", a.instance_id)
        c = await plane.instance.derived(project, "c", b.instance_id)
        chain = Chain(plane, [a, b, c])
        never = [f"{name} has never succeeded" for name in "abc"]
        assert await chain.causes() == [[each] for each in never]
        await chain.run(0)
        assert await chain.causes() == [[], [never[1]], [never[2]]]
        await chain.run(1)
        await chain.run(2)
        assert await chain.causes() == [[], [], []]
        for version in (2, 3):  # b is stale already when a moves for the second time
            await chain.run(0)
            moved = f"a moved from version 1 to version {version}"
            assert await chain.causes() == [[], [moved], ["b is not fresh"]]
        flow = FlowRef(instance_id=b.instance_id, flow_kind=FLOW_KIND_REFRESH)
        await plane.lineage.stub.AcceptStaleness(AcceptStalenessRequest(flow=flow, reason="only a comment"))
        assert await chain.causes() == [[], [], []]
        assert await chain.accepted(1) == "only a comment"
        await chain.run(0)
        moved = "a moved from version 3 to version 4"
        assert await chain.causes() == [[], [moved], ["b is not fresh"]]
        revoke = RevokeAcceptedStalenessRequest(flow=flow, reason="it was more")
        await plane.lineage.stub.RevokeAcceptedStaleness(revoke)
        moved = "a moved from version 1 to version 4"
        assert await chain.causes() == [[], [moved], ["b is not fresh"]]
        assert await chain.accepted(1) == ""
        await plane.lineage.stub.InvalidateFlow(InvalidateFlowRequest(flow=flow, reason="wrong"))
        assert await chain.causes() == [
            [],
            ["b was invalidated by developer: wrong", moved],
            ["b is not fresh"],
        ]
        await plane.instance.update(b.instance_id, {"name": "renamed"}, "name")
        assert (await chain.causes())[2] == ["renamed is not fresh"]
        await chain.run(1)
        assert await chain.causes() == [[], [], ["renamed moved from version 1 to version 2"]]
        await chain.run(2)
        assert await chain.causes() == [[], [], []]
