"""A run of the newest procedure, from the instances to its artifacts and metrics."""

from pathlib import Path
from typing import Any

import polars as pl

from optaic.common.v1 import flow_pb2
from support.worker import World
from worker.execution import Outcome

REFRESH = flow_pb2.FLOW_KIND_REFRESH
BACKTEST = flow_pb2.FLOW_KIND_BACKTEST


async def execute(world: World, run: Any, root: Path) -> Any:
    ending = await world.execute(run, root)
    assert ending.outcome is Outcome.COMPLETED, run.error
    return run


async def test_a_membership_says_who_may_be_chosen(world: World, tmp_path: Path) -> None:
    prices = await execute(world, world.runs.submit(world.dataset(), REFRESH), tmp_path)
    listed = world.dataset("members", symbols=["AAPL", "AMD"])
    members = await execute(world, world.runs.submit(listed, REFRESH), tmp_path)
    signal = world.signal()
    refresh = await execute(world, world.runs.submit(signal, REFRESH, {"input": prices}), tmp_path)
    backtest = world.backtest(signal)
    backtest.backtest.config.procedure = 2
    backtest.backtest.assets.membership_id = listed.instance_id
    world.instances.put(backtest)
    read = {"membership": members, "prices": prices, "signal": refresh}
    run = await execute(world, world.runs.submit(backtest, BACKTEST, read), tmp_path)
    assert set(run.artifacts) == {
        "equity_curve", "trades", "weights_history", "daily_returns", "drawdowns", "monthly_returns", "positions",
    }  # fmt: skip
    assert set(pl.read_parquet(run.artifacts["trades"])["entity"]) == {"AAPL", "AMD"}
    assert run.metrics["members"] == 2
    assert run.metrics["procedure"] == 2
    assert list(run.metrics["warnings"]) == []
    assert len(run.metrics["worst_drawdowns"]) == 10
    assert run.backtest.session_count == run.metrics["sessions"]


async def test_a_membership_that_the_run_does_not_read_is_refused(world: World, tmp_path: Path) -> None:
    prices = await execute(world, world.runs.submit(world.dataset(), REFRESH), tmp_path)
    signal = world.signal()
    refresh = await execute(world, world.runs.submit(signal, REFRESH, {"input": prices}), tmp_path)
    backtest = world.backtest(signal)
    backtest.backtest.config.procedure = 2
    backtest.backtest.assets.membership_id = world.dataset("members").instance_id
    world.instances.put(backtest)
    run = world.runs.submit(backtest, BACKTEST, {"prices": prices, "signal": refresh})
    await world.execute(run, tmp_path)
    assert (run.error.type, "assets.membership_id" in run.error.message) == ("MissingInput", True)
