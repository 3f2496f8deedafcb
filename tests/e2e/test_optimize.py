"""A researcher optimizes: weights of a signal, a backtest with the optimizer, and what becomes stale when it changes."""

import datetime as dt
from typing import Any

import pytest

from optaic.client import AsyncClient, word
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE
from support.stack import RunningStack

SYMBOLS = ["AAPL", "AMD", "BAC", "CVX", "GE", "MSFT"]
PRICES = {"symbols": SYMBOLS, "start": "2018-01-02", "end": "2020-12-31"}


async def completed(client: AsyncClient, instance: instance_pb2.Instance, **fields: Any) -> run_pb2.Run:
    run: run_pb2.Run = await (await client.runs.submit(instance, **fields)).wait(timeout=PATIENCE)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    return run


async def is_in(client: AsyncClient, instance: instance_pb2.Instance) -> str:
    return word(await client.status.get(instance), "status")


async def test_an_optimizer_decides_and_a_backtest_executes_it(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        project = await create_project(client, "optimize")
        prices = await create_dataset(client, project, "prices", "sp500_prices", PRICES)
        momentum = await client.instances.create(
            project=project,
            name="momentum",
            signal={
                "dataset": {
                    "pipeline": {
                        "definition_name": "expression",
                        "config": {"expression": "ZSCORE(REF(close, 21) / REF(close, 126) - 1)"},
                    }
                }
            },
            upstreams={"input": prices},
        )
        mvo = await client.instances.create(
            project=project,
            name="mvo",
            portfolio_optimizer={"constraints": {"max_weight": 0.5}},
            definition_name="mean_variance",
            config={"lookback": 126},
            upstreams={"signal": momentum, "covariance": prices},
        )
        backtest = await client.instances.create(
            project=project,
            name="optimized",
            backtest={"signals": {"primary": momentum.instance_id}, "date_range": {"start": "2019-06-03"}},
            upstreams={"prices": prices, "optimizer": mvo},
        )
        await completed(client, prices)
        await completed(client, momentum)
        # The optimizer has never run, and does not block the backtest.
        tested = await completed(client, backtest)
        assert await is_in(client, backtest) == "READY"
        (pinned,) = [each for each in tested.input_versions if each.role == "optimizer"]
        assert (pinned.instance_revision, pinned.version) == (1, 0)
        assert tested.metrics["decisions_without_solution"] == 0

        first = await completed(client, mvo, parameters={"data_date": "2020-06-30"})
        assert first.is_partial_range
        assert await is_in(client, mvo) == "STALE"
        decided = await completed(client, mvo)
        assert await is_in(client, mvo) == "READY"
        assert await is_in(client, backtest) == "READY"
        weights = await client.data.read(mvo)
        assert weights["date"].unique().sort().to_list() == [dt.date(2020, 6, 30), dt.date(2020, 12, 31)]
        assert weights.filter(weights["date"] == dt.date(2020, 12, 31))["weight"].sum() == pytest.approx(
            1.0, abs=1e-5
        )
        assert all(weight <= 0.5 + 1e-5 for weight in weights["weight"])
        assert decided.metrics["solver_status"] == "optimal"

        tighter = {"portfolio_optimizer": {"constraints": {"max_weight": 0.3}}}
        await client.instances.update(mvo, tighter)
        assert await is_in(client, backtest) == "STALE"
        (explanation,) = (await client.lineage.explain(backtest)).explanations
        assert word(explanation.cause, "kind") == "OWN_CONFIG"
        assert "its optimizer changed" in explanation.cause.message
        again = await completed(client, backtest)
        assert await is_in(client, backtest) == "READY"
        assert again.output_version.digest != tested.output_version.digest

        impossible = {"portfolio_optimizer": {"constraints": {"max_weight": 0.1}}}
        await client.instances.update(mvo, impossible)
        failed = await (await client.runs.submit(mvo)).wait(timeout=PATIENCE)
        assert (failed.error.type, "max_weight" in failed.error.message) == ("NoSolution", True)
        assert (await client.data.read(mvo)).equals(weights), "nothing was published"
