"""What a run calls its upstreams and their columns: as expressions name them, and as their pipelines do."""

from pathlib import Path

import polars as pl

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from support.worker import World
from worker.execution import Outcome

REFRESH = flow_pb2.FLOW_KIND_REFRESH
BACKTEST = flow_pb2.FLOW_KIND_BACKTEST


async def complete(world: World, run: run_pb2.Run, root: Path) -> run_pb2.Run:
    ending = await world.execute(run, root)
    assert ending.outcome is Outcome.COMPLETED, run.error
    return run


async def test_a_backtest_reads_a_signal_with_another_value_column(world: World, tmp_path: Path) -> None:
    prices = await complete(world, world.runs.submit(world.dataset(), REFRESH), tmp_path)
    navs = []
    for output in ("value", "score"):
        signal = world.signal()
        signal.signal.dataset.pipeline.config["output"] = output
        world.instances.put(signal)
        refresh = await complete(world, world.runs.submit(signal, REFRESH, {"input": prices}), tmp_path)
        backtest = world.runs.submit(world.backtest(signal), BACKTEST, {"signal": refresh, "prices": prices})
        await complete(world, backtest, tmp_path)
        navs.append(pl.read_parquet(backtest.artifacts["equity_curve"])["nav"].to_list())
    assert navs[0] == navs[1]


async def test_an_expression_reads_an_upstream_under_the_name_that_it_was_bound_to(
    world: World, tmp_path: Path
) -> None:
    dataset = world.dataset(name="renamed-since")
    prices = await complete(world, world.runs.submit(dataset, REFRESH), tmp_path)
    signal = world.signal('RANK("sig-a".close)')
    signal.upstream_refs.add(resource_id=dataset.instance_id, role="input", name="sig-a")
    world.instances.put(signal)
    run = world.runs.submit(signal, REFRESH, {"input": prices})
    await complete(world, run, tmp_path)
