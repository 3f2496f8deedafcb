"""A flow run whose run ended without it ends as its run did: Prefect and run-service say one thing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from support.polling import eventually
from support.worker import World
from worker.execution import Outcome
from worker.reports import Reporter

REFRESH = flow_pb2.FLOW_KIND_REFRESH
_ENDS = [
    (run_pb2.RUN_STATUS_COMPLETED, Outcome.COMPLETED),
    (run_pb2.RUN_STATUS_FAILED, Outcome.FAILED),
    (run_pb2.RUN_STATUS_CANCELLED, Outcome.CANCELLED),
]


@pytest.mark.parametrize(("status", "outcome"), _ENDS)
async def test_a_flow_run_that_starts_after_its_run_has_ended_ends_alike(
    world: World, tmp_path: Path, status: run_pb2.RunStatus.ValueType, outcome: Outcome
) -> None:
    run = world.runs.submit(world.dataset("probe", "probe"), REFRESH)
    run.status = status
    ending = await world.execute(run, tmp_path)
    assert ending.outcome is outcome


@pytest.mark.parametrize(("status", "outcome"), _ENDS)
async def test_a_flow_run_ends_like_its_run_that_ended_meanwhile(
    world: World, tmp_path: Path, status: run_pb2.RunStatus.ValueType, outcome: Outcome
) -> None:
    gate = tmp_path / "gate"
    run = world.runs.submit(world.dataset("probe", "probe", behaviour="wait", gate=str(gate)), REFRESH)
    execution = world.execute(run, tmp_path)
    task = asyncio.create_task(execution)
    await eventually((tmp_path / "gate.entered").exists)
    run.status = status  # by somebody else: the next heartbeat hears of it
    assert (await task).outcome is outcome


async def test_a_run_whose_heartbeats_break_fails_with_the_reason(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    run = world.runs.submit(world.dataset("probe", "probe", behaviour="wait", gate=str(gate)), REFRESH)

    async def break_down(_: Reporter, __: object) -> None:
        await eventually((tmp_path / "gate.entered").exists)
        raise ValueError("heartbeats broke")

    monkeypatch.setattr(Reporter, "keep_alive", break_down)
    ending = await world.execute(run, tmp_path)
    assert ending.outcome is Outcome.FAILED
    assert (run.error.type, run.error.message) == ("ValueError", "heartbeats broke")
