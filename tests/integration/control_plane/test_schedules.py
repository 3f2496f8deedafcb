"""A day of schedules: whatever becomes of a tick is a normal case to every service that hears of it.

`make test` has a tick of each schedule every two hours, `make test-faults` every half hour.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter
from functools import partial
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1.instance_service_pb2 import DeleteInstanceRequest, PauseInstanceRequest
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from optaic.status.v1.status_service_pb2 import ListInstanceStatusesRequest
from support.control_plane import ControlPlane, control_plane
from support.polling import eventually
from support.run_service import refused

pytestmark = pytest.mark.faults
_TICKS = 48 if os.environ.get("OPTAIC_FAULTS") == "full" else 12  # of each schedule, in a day
_PAUSED, _DELETED = _TICKS * 10 // 24, _TICKS * 15 // 24
_SCHEDULES: dict[str, dict[str, str]] = {
    "skipping": {"overlapPolicy": "OVERLAP_POLICY_SKIP"},
    "queueing": {"overlapPolicy": "OVERLAP_POLICY_QUEUE_ONE"},
    "replacing": {"overlapPolicy": "OVERLAP_POLICY_CANCEL_PREVIOUS"},
    "catching_up_with_all": {"catchUpPolicy": "CATCH_UP_POLICY_ALL"},
    "catching_up_with_none": {"catchUpPolicy": "CATCH_UP_POLICY_NONE"},
    "paused": {},
    "deleted": {},
}


class Day:
    """Scheduled instances, and a clock that the test moves from tick to tick."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.instances: dict[str, instance_pb2.Instance] = {}

    async def create(self) -> None:
        """Create an instance for each policy, and a reader of one that has never run."""
        instances = self.plane.instance
        project = (await instances.project()).project_id
        for name, policies in _SCHEDULES.items():
            schedule = {"cron": {"expression": "* * * * *"}, **policies}
            self.instances[name] = await instances.prices(project, name, schedule=schedule)
        idle = await instances.prices(project, "idle")
        schedule = {"cron": {"expression": "* * * * *"}}
        self.instances["refused"] = await instances.derived(
            project, "refused", idle.instance_id, schedule=schedule
        )
        await self.plane.rest()

    async def tick(self, name: str, *, late: float = 0) -> run_report_service_pb2.StartRunResponse:
        """Let the flow run of a tick start, this many seconds late."""
        request = self.plane.run.request(str(uuid.uuid4()))
        flow = flow_pb2.FlowRef(
            instance_id=self.instances[name].instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH
        )
        request.scheduled.flow.CopyFrom(flow)
        moment = int(self.plane.run.clock.now().timestamp() - late)
        request.scheduled.scheduled_time.CopyFrom(Timestamp(seconds=moment - moment % 60))
        return await self.plane.run.send(request)

    async def end_active(self, number: int) -> None:
        """End what is active: most runs complete, some fail."""
        run = self.plane.run
        active = [run_pb2.RUN_STATUS_PENDING, run_pb2.RUN_STATUS_RUNNING]
        listed = await run.runs.ListRuns(run_service_pb2.ListRunsRequest(statuses=active))
        for each in listed.runs:
            dispatched = await eventually(partial(self._dispatched, each.run_id))
            started = await run.start(each.run_id, dispatched)
            if number % 6:
                await run.complete(each.run_id, started.fencing_token, digest=each.run_id)
            else:
                await run.fail(each.run_id, started.fencing_token)

    async def _dispatched(self, run_id: str) -> str:
        return (await self.plane.run.get(run_id)).orchestrator_run_id

    async def whys(self) -> Counter[str]:
        """Count what became of the ticks that were not run: runs without a number."""
        counted: Counter[str] = Counter()
        request = run_service_pb2.ListRunsRequest(statuses=[run_pb2.RUN_STATUS_CANCELLED], page_size=1000)
        for run in (await self.plane.run.runs.ListRuns(request)).runs:
            if not run.run_number:
                counted[run.error.type] += 1
        return counted


async def test_a_day_of_schedules_leaves_no_dead_letter(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with control_plane(nats_url, {"run": {"lease_seconds": 10**6}}) as plane:
        day = Day(plane)
        await day.create()
        run, instances = plane.run, plane.instance.instances
        for number in range(_TICKS):
            run.clock.advance(86_400 / _TICKS)
            if number == _PAUSED:
                await instances.PauseInstance(
                    PauseInstanceRequest(instance_id=day.instances["paused"].instance_id)
                )
            is_late = number % 5 == 0
            for name in day.instances:
                if name == "deleted" and number >= _DELETED:
                    continue
                await day.tick(name, late=600 if is_late and name.startswith("catching") else 0)
                if is_late and name == "catching_up_with_all":
                    await day.tick(name, late=300)
            run.clock.advance(6)
            await run.ticker.step()
            if number == _DELETED:
                await instances.DeleteInstance(
                    DeleteInstanceRequest(instance_id=day.instances["deleted"].instance_id)
                )
                await plane.rest()
                async with refused("INSTANCE_NOT_FOUND"):
                    await day.tick("deleted")
            if number % 3:
                await day.end_active(number)
        assert {
            "RUN_ACTIVE",
            "TICK_SKIPPED",
            "TICK_MISSED",
            "UPSTREAM_NOT_READY",
            "INSTANCE_PAUSED",
        } <= set(await day.whys())
        await plane.rest()
        assert await plane.dead_letters() == []
        # Not only silent: what ran has moved lineage, what did not run has moved nothing.
        states = {each.instance_name: each for each in await _statuses(plane)}
        assert states["skipping"].flows[0].version > 1
        assert (states["refused"].flows[0].run_number, states["refused"].flows[0].version) == (0, 0)


async def _statuses(plane: ControlPlane) -> Any:
    return (await plane.status.stub.ListInstanceStatuses(ListInstanceStatusesRequest())).instance_statuses
