"""Instances that follow their upstream flows, on a whole control plane."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1.lineage_service_pb2 import GetFlowStateRequest
from optaic.run.v1 import run_pb2, run_service_pb2
from support.control_plane import ControlPlane
from support.polling import eventually

ALL, ANY = "MODE_ALL_UPSTREAMS", "MODE_ANY_UPSTREAM"
UPSTREAM, MANUAL = run_pb2.RUN_TRIGGER_UPSTREAM, run_pb2.RUN_TRIGGER_MANUAL
COMPLETED, FAILED, PENDING = (
    run_pb2.RUN_STATUS_COMPLETED,
    run_pb2.RUN_STATUS_FAILED,
    run_pb2.RUN_STATUS_PENDING,
)
numbers = itertools.count()


class World:
    """Instances, some of which follow, and their runs."""

    def __init__(self, plane: ControlPlane, project: str) -> None:
        self.plane = plane
        self.run = plane.run
        self.project = project

    async def prices(self, **fields: Any) -> instance_pb2.Instance:
        """Create a dataset that reads nothing."""
        return await self.plane.instance.prices(self.project, f"p{next(numbers)}", **fields)

    async def following(
        self, *upstreams: instance_pb2.Instance, mode: str = ALL, interval: str = "0s"
    ) -> instance_pb2.Instance:
        """Create a dataset that reads others and follows them."""
        fields = {"autoRefresh": {"mode": mode, "minInterval": interval}} if mode else {}
        ids = [each.instance_id for each in upstreams]
        return await self.plane.instance.derived(self.project, f"f{next(numbers)}", *ids, **fields)

    async def runs_of(self, instance: instance_pb2.Instance) -> Sequence[run_pb2.Run]:
        """Return the runs of an instance, oldest first."""
        request = run_service_pb2.ListRunsRequest(instance_id=instance.instance_id, page_size=1000)
        return list((await self.run.runs.ListRuns(request)).runs)[::-1]

    async def end(self, run: run_pb2.Run, *, digest: str = "", is_failing: bool = False) -> run_pb2.Run:
        """Start a pending run and end it."""

        async def dispatched() -> str:
            return (await self.run.get(run.run_id)).orchestrator_run_id

        started = await self.run.start(run.run_id, await eventually(dispatched))
        if is_failing:
            return await self.run.fail(run.run_id, started.fencing_token)
        return await self.run.complete(run.run_id, started.fencing_token, digest=digest or run.run_id)

    async def refresh(self, instance: instance_pb2.Instance, digest: str = "", **fields: Any) -> run_pb2.Run:
        """Submit a run as a user does, and complete it."""
        return await self.end(await self.run.submit(instance, **fields), digest=digest)

    async def pending(self, instance: instance_pb2.Instance) -> run_pb2.Run:
        """Wait for a pending run of an instance."""

        async def find() -> list[run_pb2.Run]:
            return [run for run in await self.runs_of(instance) if run.status == PENDING]

        (run,) = await eventually(find, 30, f"{instance.name} does not run by itself")
        return run

    async def follow(self, instance: instance_pb2.Instance, **fields: Any) -> run_pb2.Run:
        """Wait for a run that an instance has by itself, and end it."""
        run = await self.pending(instance)
        assert run.trigger == UPSTREAM
        return await self.end(run, **fields)

    async def tick(self, instance: instance_pb2.Instance, time: datetime) -> run_pb2.Run:
        """Let the flow run of a scheduled time start."""
        request = self.run.request(str(uuid.uuid4()))
        flow = flow_pb2.FlowRef(instance_id=instance.instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
        request.scheduled.flow.CopyFrom(flow)
        request.scheduled.scheduled_time.CopyFrom(Timestamp(seconds=int(time.timestamp())))
        return (await self.run.send(request)).run

    async def rest(self) -> None:
        """Wait until every event has been applied and every flow that is due has been decided about."""
        for _ in range(2):
            await self.plane.rest()
            await eventually(self.is_settled, 30, "flows are still due")

    async def is_settled(self) -> bool:
        """Return whether no flow is due soon."""
        now = self.run.clock.now()
        async with self.run.app.deps.database.infra() as connection:
            rows = await connection.exec_driver_sql(
                "select due_time from auto_refreshes where due_time is not null"
            )
            return all((row[0] - now).total_seconds() > 30 for row in rows)

    async def state(self, instance: instance_pb2.Instance) -> Any:
        """Return the state of the flow of an instance."""
        flow = flow_pb2.FlowRef(instance_id=instance.instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
        return await self.plane.lineage.stub.GetFlowState(GetFlowStateRequest(flow=flow))
