"""What a worker may claim in a real Prefect server, and what it gives back."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from support.prefect_api import PrefectApi
from worker.config import Settings
from worker.prefect_adapter import FlowRunNotWaitingError, FlowRunRefusedError, WorkPool


@pytest.fixture
async def pool(prefect_url: str, tmp_path: Path) -> AsyncIterator[WorkPool]:
    settings = Settings(
        instance_address="127.0.0.1:9",
        run_address="127.0.0.1:9",
        data_root=str(tmp_path),
        executor_token="secret",
        tenants=("default",),
        prefect_api_url=prefect_url,
        work_pool=tmp_path.name,
    )
    async with WorkPool(settings) as pool:
        await pool.ensure()
        yield pool


async def _history(prefect: PrefectApi, flow_run_id: UUID) -> list[str]:
    states = await prefect.call("GET", f"/flow_run_states/?flow_run_id={flow_run_id}")
    return [each["type"] for each in states]


async def _make(prefect: PrefectApi, pool_name: str, time: dt.datetime | None = None) -> UUID:
    deployment = await prefect.deploy("claims", pool_name)
    made = prefect.trigger(deployment) if time is None else prefect.trigger_at(time, deployment)
    return UUID(await made)


async def test_a_flow_run_that_waits_is_listed_and_claimed_once(
    prefect: PrefectApi, pool: WorkPool, tmp_path: Path
) -> None:
    flow_run_id = await _make(prefect, tmp_path.name)
    assert [each.id for each in await pool.list_due(10)] == [flow_run_id]
    assert await pool.list_waiting([flow_run_id]) == {flow_run_id}
    await pool.claim(flow_run_id)
    with pytest.raises(FlowRunRefusedError, match="PENDING"):
        await pool.claim(flow_run_id)
    assert await pool.list_due(10) == []
    assert await pool.list_waiting([flow_run_id]) == set()
    assert await _history(prefect, flow_run_id) == ["SCHEDULED", "PENDING"]


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELLING", "CANCELLED"])
async def test_prefect_refuses_the_claim_of_what_another_has_or_somebody_has_cancelled(
    prefect: PrefectApi, pool: WorkPool, tmp_path: Path, state: str
) -> None:
    flow_run_id = await _make(prefect, tmp_path.name)
    body = {"state": {"type": state}, "force": True}
    await prefect.call("POST", f"/flow_runs/{flow_run_id}/set_state", body)
    before = await prefect.state(str(flow_run_id))
    with pytest.raises(FlowRunRefusedError) as refused:
        await pool.claim(flow_run_id)
    assert not isinstance(refused.value, FlowRunNotWaitingError)
    assert await prefect.state(str(flow_run_id)) == before


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CRASHED"])
async def test_a_flow_run_that_has_ended_is_no_longer_listed_and_its_claim_is_undone(
    prefect: PrefectApi, pool: WorkPool, tmp_path: Path, state: str
) -> None:
    flow_run_id = await _make(prefect, tmp_path.name)
    body = {"state": {"type": state, "message": "it ended so"}}
    await prefect.call("POST", f"/flow_runs/{flow_run_id}/set_state", body)
    assert await pool.list_waiting([flow_run_id]) == set()
    with pytest.raises(FlowRunNotWaitingError, match="ended") as refused:
        await pool.claim(flow_run_id)
    await pool.give_back(flow_run_id, refused.value.state_id)
    await pool.give_back(flow_run_id, refused.value.state_id)  # the first answer was lost
    assert await _history(prefect, flow_run_id) == ["SCHEDULED", state, "PENDING", state]
    assert (await prefect.state(str(flow_run_id)))["message"] == "it ended so"


async def test_a_flow_run_whose_time_has_not_come_waits_on_after_a_claim(
    prefect: PrefectApi, pool: WorkPool, tmp_path: Path
) -> None:
    time = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    flow_run_id = await _make(prefect, tmp_path.name, time)
    assert await pool.list_waiting([flow_run_id]) == set()
    with pytest.raises(FlowRunNotWaitingError, match="not due") as refused:
        await pool.claim(flow_run_id)
    await pool.give_back(flow_run_id, refused.value.state_id)
    found = await prefect.call("GET", f"/flow_runs/{flow_run_id}")
    assert found["state_type"] == "SCHEDULED"
    assert dt.datetime.fromisoformat(found["next_scheduled_start_time"]) == time


async def test_a_claim_after_which_somebody_has_cancelled_is_not_undone(
    prefect: PrefectApi, pool: WorkPool, tmp_path: Path
) -> None:
    time = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    flow_run_id = await _make(prefect, tmp_path.name, time)
    with pytest.raises(FlowRunNotWaitingError) as refused:
        await pool.claim(flow_run_id)
    body = {"state": {"type": "CANCELLED"}, "force": True}
    await prefect.call("POST", f"/flow_runs/{flow_run_id}/set_state", body)
    await pool.give_back(flow_run_id, refused.value.state_id)
    assert (await prefect.state(str(flow_run_id)))["type"] == "CANCELLED"


async def test_the_queues_from_which_flow_runs_may_be_taken_freely(
    prefect: PrefectApi, pool: WorkPool, tmp_path: Path
) -> None:
    path = f"/work_pools/{tmp_path.name}"
    other = await prefect.call("POST", f"{path}/queues", {"name": "other"})
    found = await prefect.call("POST", f"{path}/queues/filter", {})
    both = {UUID(each["id"]) for each in found}
    assert len(both) == 2
    assert await pool.list_free_queues() == both
    flow_run = await prefect.call("GET", f"/flow_runs/{await _make(prefect, tmp_path.name)}")
    assert UUID(flow_run["work_queue_id"]) in both
    rest = both - {UUID(other["id"])}
    for change, expected in (
        ({"is_paused": True}, rest),
        ({"is_paused": False, "concurrency_limit": 0}, rest),
        ({"concurrency_limit": 5}, rest),
        ({"concurrency_limit": None}, both),
    ):
        await prefect.call("PATCH", f"{path}/queues/other", change)
        assert await pool.list_free_queues() == expected
    for change, expected in (
        ({"is_paused": True}, set()),
        ({"is_paused": False, "concurrency_limit": 0}, set()),
        ({"concurrency_limit": 5}, set()),
        ({"concurrency_limit": None}, both),
    ):
        await prefect.call("PATCH", path, change)
        assert await pool.list_free_queues() == expected
