"""A worker's process that is told which flow runs were made, against a real Prefect server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from optaic.run.v1.run_report_service_pb2 import DispatchedRun
from support.polling import eventually
from support.worker_process import WorkerProcess

# It looks only when it is told to, and says for which flow runs.
ENVIRONMENT = {"OPTAIC_POLL_SECONDS": "3600", "OPTAIC_LOG_LEVEL": "DEBUG"}
TAKEN, LOOKED_FOR = "flow run taken by its name", "flow run looked for"


async def _name_one(fixture: WorkerProcess) -> tuple[str, bool]:
    """Make a flow run and name it, as run-service does; return its id, and whether it was taken by its name."""
    run, flow_run_id = await fixture.trigger()
    found = await fixture.prefect.call("GET", f"/flow_runs/{flow_run_id}")
    named = DispatchedRun(
        orchestrator_run_id=flow_run_id,
        run_id=run.run_id,
        flow=flow_pb2.FlowRef(instance_id=run.instance_id, flow_kind=run.flow_kind),
        work_queue_id=found["work_queue_id"],
    )
    fixture.world.runs.hints.put_nowait(named)
    await eventually(lambda: {TAKEN, LOOKED_FOR} & _said(fixture, flow_run_id), 60)
    return flow_run_id, TAKEN in _said(fixture, flow_run_id)


def _said(fixture: WorkerProcess, flow_run_id: str) -> set[str]:
    lines = [json.loads(line) for line in fixture.log.read_text().splitlines() if line.startswith("{")]
    return {each["event"] for each in lines if each.get("flow_run_id") == flow_run_id}


async def _name_until(fixture: WorkerProcess, *, is_taken: bool) -> str:
    """Name flow runs until one was taken by its name, or was not; all others end. Return its id."""

    async def found() -> str | None:
        flow_run_id, was_taken = await _name_one(fixture)
        if was_taken or is_taken:
            assert (await fixture.prefect.wait(flow_run_id, deadline=60))["type"] == "COMPLETED"
        return flow_run_id if was_taken is is_taken else None

    return str(await eventually(found, 120))


async def test_a_named_flow_run_is_executed_and_ends_as_its_run(fixture: WorkerProcess) -> None:
    with fixture.worker(**ENVIRONMENT):
        await fixture.pool_exists()
        flow_run_id = await _name_until(fixture, is_taken=True)
        runs = fixture.world.runs.stored.values()
        (run,) = [each for each in runs if each.orchestrator_run_id == flow_run_id]
        assert run.status == run_pb2.RUN_STATUS_COMPLETED
        states = await fixture.prefect.call("GET", f"/flow_run_states/?flow_run_id={flow_run_id}")
        assert [each["type"] for each in states] == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]


@pytest.mark.parametrize("changes", [{"is_paused": True}, {"concurrency_limit": 0}])
async def test_a_named_flow_run_waits_while_its_pool_is_paused_or_has_no_room(
    fixture: WorkerProcess, changes: dict[str, Any]
) -> None:
    path = f"/work_pools/{fixture.pool}"
    with fixture.worker(**ENVIRONMENT):
        await fixture.pool_exists()
        await _name_until(fixture, is_taken=True)
        await fixture.prefect.call("PATCH", path, changes)
        flow_run_id = await _name_until(
            fixture, is_taken=False
        )  # within two seconds the worker sees the change
        assert (await fixture.prefect.state(flow_run_id))["type"] == "SCHEDULED"
        await fixture.prefect.call("PATCH", path, {"is_paused": False, "concurrency_limit": None})
        fixture.world.runs.hints.put_nowait(None)
        assert (await fixture.prefect.wait(flow_run_id, deadline=60))["type"] == "COMPLETED"
        assert TAKEN not in _said(fixture, flow_run_id)
