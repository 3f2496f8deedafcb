"""A flow run that somebody cancels in Prefect, at whatever moment of its run's life, is a cancelled run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from devstack.postgres import Postgres
from optaic.run.v1 import run_pb2
from support.killed_runs import KillWorld, kill_world
from support.postgres import service_database
from support.prefect_api import prefect_api
from support.run_moments import AFTER_COMPLETION, BEFORE_COMPLETION, MOMENTS
from support.tls_context import shared_context

pytestmark = pytest.mark.faults
_SECONDS = 30.0  # longer than it takes to see the cancellation


def _cancel(url: str, deployment_id: str) -> None:
    """Do what the button in Prefect's UI does; blocking, since nothing is to go on meanwhile."""
    with httpx.Client(base_url=url, timeout=10, trust_env=False, verify=shared_context()) as client:
        body: dict[str, Any] = {
            "deployments": {"id": {"any_": [deployment_id]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}}},
        }
        (flow_run,) = client.post("/flow_runs/filter", json=body).json()
        state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        client.post(f"/flow_runs/{flow_run['id']}/set_state", json=state).raise_for_status()


async def _run_cancelled_at(world: KillWorld, prefect_url: str, moment: str) -> run_pb2.Run:
    await world.add_flow(_SECONDS, max_retries=2)
    instance = world.flows[-1]
    deployment_id = world.deployments[instance.instance_id]
    world.gate.arm(moment, 1, lambda _: _cancel(prefect_url, deployment_id))
    run_id = await world.submit(instance)
    await world.wait_for_strike()
    await world.wait_for_ends()
    runs = await world.list_runs(instance.instance_id)
    assert [run.run_id for run in runs] == [run_id], moment  # and no retry
    return runs[0]


async def test_it_is_cancelled_here_as_by_our_own_cancel(
    postgres_server: Postgres, nats_url: str, prefect_url: str, tmp_path: Path
) -> None:
    del postgres_server
    async with (
        service_database("run", "run_service") as urls,
        prefect_api(prefect_url) as prefect,
        kill_world(urls, nats_url, prefect_url, prefect, tmp_path) as world,
    ):
        for moment in MOMENTS:
            if moment in {BEFORE_COMPLETION, AFTER_COMPLETION}:
                continue  # the computation has been made: whichever comes first wins
            run = await _run_cancelled_at(world, prefect_url, moment)
            assert run.status == run_pb2.RUN_STATUS_CANCELLED, moment
            assert (run.error.type, run.error.message) == (
                "CANCELLED",
                "the flow run was cancelled in Prefect",
            ), moment
            assert await world.end_in_prefect(run, {"CANCELLED"}) == "CANCELLED", moment
