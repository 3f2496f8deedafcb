"""Chains of instances with schedules, in a control plane whose runs the test ends itself."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_events_pb2, run_pb2, run_service_pb2
from optaic.status.v1.status_service_pb2 import GetInstanceStatusRequest
from support.control_plane import ControlPlane
from support.polling import eventually


class ScheduledChains:
    """Scheduled instances, and the runs of their scheduled times."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.run = plane.run
        self.project = ""
        self.tokens: dict[str, str] = {}  # by run

    async def chain(self, length: int, expression: str, **schedule: Any) -> list[instance_pb2.Instance]:
        """Create instances of which each reads the one before, with one schedule for all."""
        instances = self.plane.instance
        self.project = self.project or (await instances.project()).project_id
        timing = {"cron": {"expression": expression}, **schedule}
        chain = [await instances.prices(self.project, f"c{uuid.uuid4().hex[:8]}", schedule=timing)]
        while len(chain) < length:
            name = f"c{uuid.uuid4().hex[:8]}"
            upstream = chain[-1].instance_id
            chain.append(await instances.derived(self.project, name, upstream, schedule=timing))
        await self.plane.rest()
        return chain

    async def set_clock(self, time: datetime) -> None:
        """Move the clock forward to a time."""
        self.run.clock.advance((time - self.run.clock.now()).total_seconds())

    async def tick(self, instance: instance_pb2.Instance, time: datetime) -> run_pb2.Run:
        """Let the flow run of a scheduled time start."""
        request = self.run.request(str(uuid.uuid4()))
        flow = flow_pb2.FlowRef(instance_id=instance.instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
        request.scheduled.flow.CopyFrom(flow)
        request.scheduled.scheduled_time.CopyFrom(Timestamp(seconds=int(time.timestamp())))
        started = await self.run.send(request)
        self.tokens[started.run.run_id] = started.fencing_token
        return started.run

    async def runs_of(self, instance: instance_pb2.Instance) -> Sequence[run_pb2.Run]:
        """Return the runs of an instance, newest first."""
        request = run_service_pb2.ListRunsRequest(instance_id=instance.instance_id, page_size=1000)
        return list((await self.run.runs.ListRuns(request)).runs)

    async def complete(self, run: run_pb2.Run) -> None:
        """Complete a run that a scheduled time has started."""
        await self.run.complete(run.run_id, self.tokens[run.run_id], digest=run.run_id)

    async def execute(self, instance: instance_pb2.Instance, *, is_failing: bool = False) -> run_pb2.Run:
        """Start and end the run that a waiting scheduled time becomes."""
        (run,) = await eventually(partial(self.pending, instance))
        dispatched = await eventually(partial(self.dispatched, run.run_id))
        started = await self.run.start(run.run_id, dispatched)
        if is_failing:
            return await self.run.fail(run.run_id, started.fencing_token)
        return await self.run.complete(run.run_id, started.fencing_token, digest=run.run_id)

    async def pending(self, instance: instance_pb2.Instance) -> list[run_pb2.Run]:
        """Return the pending run of an instance, if there is one."""
        return [run for run in await self.runs_of(instance) if run.status == run_pb2.RUN_STATUS_PENDING]

    async def dispatched(self, run_id: str) -> str:
        """Return the flow run of a run; empty if it has none yet."""
        return (await self.run.get(run_id)).orchestrator_run_id

    async def waits_for(self, instance: instance_pb2.Instance, names: Sequence[str]) -> bool:
        """Return whether the status shows these names of instances."""
        return [each.instance_name for each in await self._awaited(instance)] == names

    async def waits_because(self, instance: instance_pb2.Instance, reasons: set[str]) -> bool:
        """Return whether the status shows these reasons."""
        return {each.reason for each in await self._awaited(instance)} == reasons

    async def _awaited(self, instance: instance_pb2.Instance) -> Sequence[run_events_pb2.AwaitedFlow]:
        request = GetInstanceStatusRequest(instance_id=instance.instance_id)
        (flow,) = (await self.plane.status.stub.GetInstanceStatus(request)).flows
        return list(flow.waiting_for.flows)

    async def refused(self, instance: instance_pb2.Instance, reason: str) -> run_pb2.Run:
        """Wait until a scheduled time is recorded as not run for a reason."""

        async def find() -> list[run_pb2.Run]:
            return [run for run in await self.runs_of(instance) if run.error.type == reason]

        return (await eventually(find))[0]
