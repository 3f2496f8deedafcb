"""Runs of an optimizer, from the instances to the weights; and backtests that execute one."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2
from optaic.run.v1 import run_pb2
from support.polling import eventually
from support.worker import World
from worker.builtin.delta_store import DeltaStore
from worker.execution import Outcome

REFRESH = flow_pb2.FLOW_KIND_REFRESH
OPTIMIZE = flow_pb2.FLOW_KIND_OPTIMIZE
BACKTEST = flow_pb2.FLOW_KIND_BACKTEST


class Job:
    """Prices, a signal of them, and runs of what reads both."""

    def __init__(self, world: World, root: Path) -> None:
        self.world, self.root = world, root

    async def execute(self, run: run_pb2.Run) -> run_pb2.Run:
        ending = await self.world.execute(run, self.root)
        assert ending.outcome is Outcome.COMPLETED, run.error
        return run

    async def prepare(self) -> Job:
        self.prices = self.world.dataset()
        self.priced = await self.execute(self.world.runs.submit(self.prices, REFRESH))
        self.signal = self.world.signal()
        self.signalled = await self.execute(
            self.world.runs.submit(self.signal, REFRESH, {"input": self.priced})
        )
        return self

    def submit(self, optimizer: Any, base: run_pb2.Run | None = None, **parameters: Any) -> run_pb2.Run:
        run = self.world.runs.submit(
            optimizer, OPTIMIZE, {"signal": self.signalled, "covariance": self.priced}, base
        )
        run.parameters.update(parameters)
        return run

    def table(self, run: run_pb2.Run) -> pl.DataFrame:
        version = run.output_version
        return DeltaStore().read(version.uri, version.physical_version)


@pytest.fixture
async def job(world: World, tmp_path: Path) -> Job:
    return await Job(world, tmp_path).prepare()


def returns_of(closes: pl.DataFrame, until: dt.date) -> pd.DataFrame:
    wide = closes.to_pandas().set_index(["date", "entity"])["close"].unstack("entity")  # noqa: PD010 - a series has no pivot_table
    return wide.pct_change().iloc[1:].loc[: pd.Timestamp(until)]


async def test_a_decision_and_its_figures(job: Job) -> None:
    run = await job.execute(job.submit(job.world.optimizer([job.signal], job.prices)))
    table = job.table(run)
    (date,) = table["date"].unique()
    assert date == job.table(job.signalled)["date"].max()
    assert table.columns == ["date", "entity", "weight"]
    assert table["weight"].sum() == pytest.approx(1.0, abs=1e-6)
    metrics: dict[str, Any] = dict(run.metrics)
    weights = dict(table.select("entity", "weight").iter_rows())
    held = {name: weight for name, weight in weights.items() if weight}
    past = returns_of(job.table(job.priced), date).tail(252)[list(held)]
    vector = np.array(list(held.values()))
    daily = past.to_numpy() @ vector
    deviation = daily.std(ddof=1) * np.sqrt(252)
    assert metrics["sessions"] == 252
    assert metrics["expected_return"] == pytest.approx(daily.mean() * 252)
    assert metrics["volatility"] == pytest.approx(deviation)
    assert metrics["sharpe_ratio"] == pytest.approx(daily.mean() * 252 / deviation)
    alone = past.std(ddof=1).to_numpy() * np.sqrt(252)
    assert metrics["diversification_ratio"] == pytest.approx(alone @ np.abs(vector) / deviation)
    assert metrics["effective_n"] == pytest.approx(1.0 / (vector**2).sum())
    assert metrics["concentration"] == pytest.approx(np.abs(vector).max())
    assert metrics["gross_exposure"] == pytest.approx(np.abs(vector).sum())
    assert metrics["net_exposure"] == pytest.approx(vector.sum())
    assert metrics["turnover"] is None
    assert metrics["solver_status"] == "optimal"
    assert metrics["decision_date"] == str(date)
    assert list(metrics["warnings"]) == []
    result = run.portfolio_optimization
    assert (result.decision_date, result.solver_status) == (str(date), "optimal")
    assert (result.asset_count, result.decision_count) == (len(held), 1)
    assert run.output_version.last_data_date == str(date)
    assert pl.read_parquet(run.artifacts["weights"]).equals(table)
    assert not run.is_partial_range


async def test_earlier_decisions_are_kept_and_one_of_the_same_date_is_replaced(job: Job) -> None:
    told = {"AAPL": 0.5, "AMD": 0.5}
    optimizer = job.world.optimizer([job.signal], job.prices, "told_weights", weights=told)
    first = await job.execute(job.submit(optimizer, data_date="2021-06-30"))
    assert first.is_partial_range
    assert first.metrics["optimizer.last"] == "2021-06-30"
    second = await job.execute(job.submit(optimizer, first, data_date="2021-07-30"))
    assert second.metrics["turnover"] == 0.0
    assert second.metrics["previous_decision_date"] == "2021-06-30"
    optimizer.config.update({"weights": {"AAPL": 1.0}})
    changed = job.world.instances.put(optimizer)
    third = await job.execute(job.submit(changed, second, data_date="2021-07-30"))
    assert third.metrics["turnover"] == pytest.approx(0.5)
    assert third.metrics["decisions"] == 2
    assert job.table(third).rows() == [
        (dt.date(2021, 6, 30), "AAPL", 0.5),
        (dt.date(2021, 6, 30), "AMD", 0.5),
        (dt.date(2021, 7, 30), "AAPL", 1.0),
    ]
    assert job.table(second).height == 4, "a version that was read stays as it is"
    again = await job.execute(job.submit(changed, third, data_date="2021-07-30"))
    assert again.output_version.digest == third.output_version.digest
    last = await job.execute(job.submit(changed, again))
    assert not last.is_partial_range
    assert last.output_version.last_data_date == "2021-12-31"
    to_the_end = await job.execute(job.submit(changed, again, data_date="2021-12-31"))
    assert not to_the_end.is_partial_range, "nothing later was left out"


@pytest.mark.parametrize(
    ("config", "parameters", "kind", "said"),
    [
        ({"definition": "minimum_cvar"}, {}, "NoSolution", "constraints.max_weight"),
        (
            {"weights": {"AAPL": 1.0}},
            {"data_date": "2021-07-31"},
            "NoDataInRange",
            "the last one before is 2021-07-30",
        ),
        ({"weights": {"AAPL": 1.0}}, {"data_date": "1999-01-04"}, "NoDataInRange", "date"),
        ({"weights": {"ZZZ": 1.0}}, {}, "PluginInvalid", "ZZZ"),
        ({"unsolved": True}, {}, "NoSolution", "too low"),
    ],
)
async def test_a_decision_that_cannot_be_made_fails_and_writes_nothing(
    job: Job, config: dict[str, Any], parameters: dict[str, Any], kind: str, said: str
) -> None:
    optimizer = job.world.optimizer([job.signal], job.prices, **{"definition": "told_weights", **config})
    optimizer.portfolio_optimizer.constraints.update({"max_weight": 0.1})
    optimizer = job.world.instances.put(optimizer)
    run = job.submit(optimizer, **parameters)
    await job.world.execute(run, job.root)
    assert (run.error.type, said in run.error.message) == (kind, True), run.error
    assert not list(job.root.rglob("optimize/data/*"))


async def test_an_optimizer_without_prices_is_refused(job: Job) -> None:
    optimizer = job.world.optimizer([job.signal], job.prices)
    run = job.world.runs.submit(optimizer, OPTIMIZE, {"signal": job.signalled})
    await job.world.execute(run, job.root)
    assert (run.error.type, "covariance" in run.error.message) == ("MissingInput", True)


GUARDRAILS: list[tuple[str, dict[str, float], dict[str, float], str]] = [
    ("weights_sum", {"target": 1.0, "tolerance": 0.01}, {"AAPL": 0.6, "AMD": 0.3}, "sum to 0.9, not to 1"),
    ("weights_sum", {}, {}, "sum to 0, not to 1"),
    ("weights_limits", {"min": 0.0, "max": 0.5}, {"AAPL": 0.6, "AMD": 0.4}, "AAPL (0.6)"),
    ("leverage", {"max": 1.0}, {"AAPL": 1.2, "AMD": -0.2}, "absolute sum 1.4; at most 1"),
]


@pytest.mark.parametrize(("check", "parameters", "weights", "said"), GUARDRAILS)
@pytest.mark.parametrize("blocks", [True, False])
async def test_guardrails_hold_before_a_version_is_written(
    job: Job, check: str, parameters: dict[str, float], weights: dict[str, float], said: str, blocks: bool
) -> None:
    contract = definition_pb2.GuardrailContract(name="mine", check=check)
    contract.parameters.update(parameters)
    contract.enforcement = definition_pb2.ENFORCEMENT_BLOCK if blocks else definition_pb2.ENFORCEMENT_WARN
    job.world.definitions.content["told_weights"] = definition_pb2.DefinitionVersion(
        guardrail_contracts=[contract]
    )
    run = job.submit(job.world.optimizer([job.signal], job.prices, "told_weights", weights=weights))
    await job.world.execute(run, job.root)
    if blocks:
        assert (run.error.type, said in run.error.message) == ("GuardrailViolated", True), run.error
        assert not list(job.root.rglob("optimize/data/*"))
    else:
        assert said in str(run.metrics["guardrail.mine"])
        assert job.table(run).height


async def test_a_cancelled_decision_leaves_nothing(job: Job, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = job.submit(
        job.world.optimizer([job.signal], job.prices, "told_weights", weights={"AAPL": 1.0}, gate=str(gate))
    )
    task = asyncio.create_task(job.world.execute(run, job.root))
    await eventually(Path(f"{gate}.entered").exists)
    run.status = run_pb2.RUN_STATUS_CANCELLED
    assert (await task).outcome is Outcome.CANCELLED
    assert not list(job.root.rglob("optimize/data/*"))


async def test_weights_stand_where_a_signal_may(job: Job) -> None:
    """An expression reads them by the name of the optimizer."""
    decided = await job.execute(job.submit(job.world.optimizer([job.signal], job.prices, "equal_weight")))
    tilted = job.world.signal("ZSCORE(mvo.weight)")
    tilted.upstream_refs.add(resource_id=decided.instance_id, role="input", name="mvo")
    tilted = job.world.instances.put(tilted)
    run = await job.execute(job.world.runs.submit(tilted, REFRESH, {"input": decided}))
    assert job.table(run).height == job.table(decided).height


async def test_a_backtest_executes_the_optimizer_at_its_pinned_revision(job: Job) -> None:
    optimizer = job.world.optimizer([job.signal], job.prices, "told_weights", weights={"AAPL": 1.0})
    other = job.world.instances.put(optimizer)
    other.config.update({"weights": {"AMD": 1.0}})
    assert (optimizer.revision, other.revision) == (1, 2)
    backtest = job.world.backtest(job.signal)
    backtest.backtest.config.procedure = 2
    backtest.backtest.config.ClearField("top_n")
    backtest.upstream_refs.add(resource_id=optimizer.instance_id, role="optimizer")
    backtest = job.world.instances.put(backtest)
    for revision, name in ((1, "AAPL"), (2, "AMD")):
        run = job.world.runs.submit(backtest, BACKTEST, {"prices": job.priced, "signal": job.signalled})
        run.input_versions.add(
            role="optimizer",
            instance_id=optimizer.instance_id,
            flow_kind=OPTIMIZE,
            instance_revision=revision,
        )
        await job.execute(run)
        assert set(pl.read_parquet(run.artifacts["trades"])["entity"]) == {name}
        assert run.metrics["decisions_without_solution"] == 0
        assert "told_weights" in {code.definition_name for code in run.code}


async def test_a_backtest_that_names_no_revision_of_its_optimizer_is_refused(job: Job) -> None:
    backtest = job.world.backtest(job.signal)
    backtest.backtest.config.procedure = 2
    backtest.upstream_refs.add(resource_id=job.signal.instance_id, role="optimizer")
    backtest = job.world.instances.put(backtest)
    run = job.world.runs.submit(backtest, BACKTEST, {"prices": job.priced, "signal": job.signalled})
    await job.world.execute(run, job.root)
    assert (run.error.type, "optimizer" in run.error.message) == ("MissingInput", True)
