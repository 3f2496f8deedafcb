"""The worker's process against a real Prefect server."""

from __future__ import annotations

import datetime as dt
import functools
import os
import signal
from typing import Any

import httpx
import pytest

from optaic.run.v1 import run_pb2
from support.polling import eventually
from support.processes import is_running
from support.worker import running_process
from support.worker_peers import TENANT
from support.worker_process import WorkerProcess


def _has_ended(pid: int) -> bool:
    return not is_running(pid)


async def test_what_a_run_prints_is_in_prefects_log(fixture: WorkerProcess) -> None:
    with fixture.worker():
        await fixture.pool_exists()
        run, flow_run_id = await fixture.trigger(behaviour="talk")

        async def logged() -> Any:
            wanted = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "TIMESTAMP_ASC"}
            found = await fixture.prefect.call("POST", "/logs/filter", wanted)
            return len(found) == 7 and found

        found = [(each["level"], each["name"], each["message"]) for each in await eventually(logged, 60)]
        assert found[0] == (20, "stdout", "printed")
        assert (40, "my.code", "of two\nlines") in found
        await eventually(lambda: run.status == run_pb2.RUN_STATUS_COMPLETED)
    assert list((fixture.folder / "run-output" / f"unsent-{TENANT}").iterdir()) == []


async def test_a_worker_survives_every_failure_of_its_runs(fixture: WorkerProcess) -> None:
    with fixture.worker() as worker:
        await fixture.pool_exists()
        await _both_records_agree_on_a_run(fixture)
        await _both_records_agree_on_a_failure(fixture)
        await _a_run_that_run_service_has_cancelled_ends(fixture)
        await _cancelling_in_prefect_ends_the_process(fixture)
        await _what_ended_a_run_is_said(fixture)
        await _a_killed_flow_run_is_a_crash_and_says_so(fixture)
        await _a_flow_run_that_no_worker_can_execute_ends_and_says_why(fixture)
        await _a_flow_run_needs_no_deployment_once_it_is_claimed(fixture)
        await _a_deployment_needs_no_code(fixture)
        await _both_records_agree_on_a_run(fixture)
        assert worker.poll() is None


async def _both_records_agree_on_a_run(fixture: WorkerProcess) -> None:
    run, flow_run = await fixture.trigger()
    assert (await fixture.prefect.wait(flow_run))["type"] == "COMPLETED"
    assert run.status == run_pb2.RUN_STATUS_COMPLETED
    assert run.orchestrator_run_id == flow_run


async def _both_records_agree_on_a_failure(fixture: WorkerProcess) -> None:
    run, flow_run = await fixture.trigger(behaviour="raise")
    state = await fixture.prefect.wait(flow_run)
    assert (state["type"], state["message"]) == ("FAILED", "ZeroDivisionError: nothing to divide by")
    assert run.error.type == "ZeroDivisionError"


async def _a_run_that_run_service_has_cancelled_ends(fixture: WorkerProcess) -> None:
    run, flow_run = await fixture.trigger(behaviour="sleep", seconds=20)
    await fixture.prefect.wait(flow_run, "RUNNING")
    await eventually(lambda: run.status == run_pb2.RUN_STATUS_RUNNING)
    run.status = run_pb2.RUN_STATUS_CANCELLED  # by run-service: the heartbeat tells
    assert (await fixture.prefect.wait(flow_run))["type"] == "CANCELLED"


async def _cancelling_in_prefect_ends_the_process(fixture: WorkerProcess) -> None:
    run, flow_run = await fixture.trigger(behaviour="sleep", seconds=60)
    await eventually(lambda: run.status == run_pb2.RUN_STATUS_RUNNING, 30)
    child = await fixture.child()
    state = {"state": {"type": "CANCELLING"}}
    await fixture.prefect.call("POST", f"/flow_runs/{flow_run}/set_state", state)
    assert (await fixture.prefect.wait(flow_run))["type"] == "CANCELLED"
    await eventually(lambda: not is_running(child))


async def _what_ended_a_run_is_said(fixture: WorkerProcess) -> None:
    run, flow_run = await fixture.trigger("dying", how="exit 7")
    state = await fixture.prefect.wait(flow_run)
    assert run.error.type == "PROCESS_EXITED"
    assert "exited with code 7" in run.error.message
    assert state["type"] == "FAILED"
    assert state["message"] == f"PROCESS_EXITED: {run.error.message}"


async def _a_killed_flow_run_is_a_crash_and_says_so(fixture: WorkerProcess) -> None:
    run, flow_run = await fixture.trigger(behaviour="sleep", seconds=60)
    await eventually(lambda: run.status == run_pb2.RUN_STATUS_RUNNING, 30)
    os.kill(await fixture.child(), signal.SIGKILL)
    assert (await fixture.prefect.wait(flow_run))["type"] == "FAILED"
    await eventually(lambda: run.status == run_pb2.RUN_STATUS_FAILED)
    assert run.error.type == "PROCESS_KILLED"
    assert "SIGKILL" in run.error.message


async def _a_flow_run_that_no_worker_can_execute_ends_and_says_why(fixture: WorkerProcess) -> None:
    prefect = fixture.prefect
    deployment = await prefect.deploy("by.hand", fixture.pool)
    state = await prefect.wait(await prefect.trigger(deployment, instance_id="prices", start="2024-01-01"))
    assert state["type"] == "FAILED"
    assert "instance_id is 'prices', but must be the id of an instance" in state["message"]
    assert "'start' is not a parameter of this flow" in state["message"]


async def _a_flow_run_needs_no_deployment_once_it_is_claimed(fixture: WorkerProcess) -> None:
    run, flow_run = await fixture.trigger(behaviour="sleep", seconds=5)
    await fixture.prefect.wait(flow_run, "PENDING", "RUNNING")
    found = await fixture.prefect.call("GET", f"/flow_runs/{flow_run}")
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    waiting = await fixture.prefect.trigger_at(tomorrow, found["deployment_id"])
    await fixture.prefect.call("DELETE", f"/deployments/{found['deployment_id']}")
    assert (await fixture.prefect.wait(flow_run))["type"] == "COMPLETED"
    assert run.status == run_pb2.RUN_STATUS_COMPLETED
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        await fixture.prefect.state(waiting)


async def _a_deployment_needs_no_code(fixture: WorkerProcess) -> None:
    run, flow_run = await fixture.trigger(entrypoint=None)
    assert (await fixture.prefect.wait(flow_run))["type"] == "COMPLETED"
    assert run.orchestrator_run_id == flow_run


async def test_a_terminated_worker_fails_its_runs_and_leaves_no_process(fixture: WorkerProcess) -> None:
    with fixture.worker(OPTAIC_WORKER_GRACE_SECONDS="0.2") as worker:
        await fixture.pool_exists()
        run, _ = await fixture.trigger(behaviour="sleep", seconds=60)
        await eventually(lambda: run.status == run_pb2.RUN_STATUS_RUNNING, 30)
        child = await fixture.child()
        worker.terminate()
        await eventually(lambda: worker.poll() is not None)
        assert worker.returncode == 0
        assert run.error.type == "WorkerStopped"
        await eventually(lambda: not is_running(child))


async def test_a_killed_worker_leaves_no_process(fixture: WorkerProcess) -> None:
    names = ("child", "other", "session", "daemon")
    files = [fixture.folder / f"{name}.pid" for name in names]
    with fixture.worker() as worker:
        await fixture.pool_exists()
        await fixture.trigger("dying", how="daemons", then="hold", folder=str(fixture.folder))
        await eventually(lambda: all(file.exists() and file.read_text() for file in files), 30)
        flow_process = await fixture.child()
        worker.kill()
        await eventually(lambda: not is_running(flow_process))
        for file in files:
            pid = int(file.read_text(encoding="ascii"))
            await eventually(functools.partial(_has_ended, pid), message=file.name)


async def test_prefects_own_process_worker_executes_the_same_flow(fixture: WorkerProcess) -> None:
    arguments = ["-m", "prefect", "worker", "start", "--pool", fixture.pool, "--type", "process"]
    environment = {
        **fixture.environment,
        "PREFECT_API_URL": fixture.environment["OPTAIC_PREFECT_API_URL"],
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
    }
    with running_process([*arguments, "--install-policy", "never"], environment, fixture.log):
        await fixture.pool_exists()
        run, flow_run = await fixture.trigger()
        assert (await fixture.prefect.wait(flow_run, deadline=90))["type"] == "COMPLETED"
        assert run.status == run_pb2.RUN_STATUS_COMPLETED
        run, flow_run = await fixture.trigger("dying", how="SIGKILL")
        assert (await fixture.prefect.wait(flow_run, deadline=90))["type"] == "FAILED"
        assert run.error.type == "PROCESS_KILLED"
