"""A backtest with an optimizer: what it is asked at each decision, and what becomes of its answers."""

import datetime as dt
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from optaic.plugins import Allocation, InvalidConfig, NoDataInRange, NoSolution, Optimizer, PluginInvalid
from support.small_panels import WEEKDAYS, settings, table
from worker.backtest import BacktestResult, BacktestSettings, run
from worker.builtin.optimizers import EqualWeightOptimizer, MinimumCVaROptimizer

N = None
Answer = Callable[[Mapping[str, float], pl.DataFrame], Mapping[str, Any]]


class Recorder(Optimizer):
    """An optimizer that answers as a function says, and remembers the questions."""

    def __init__(self, answer: Answer, sessions: int | None = None) -> None:
        super().__init__()
        self.answer, self.sessions = answer, sessions
        self.asked: list[tuple[dict[str, float], pl.DataFrame]] = []

    def sessions_needed(self) -> int | None:
        return self.sessions

    def optimize(self, scores: Mapping[str, float], returns: pl.DataFrame) -> Allocation:
        self.asked.append((dict(scores), returns))
        return Allocation(self.answer(scores, returns), {})


def evenly(scores: Mapping[str, float], _: pl.DataFrame) -> dict[str, float]:
    return dict.fromkeys(scores, 1.0 / len(scores))


def with_optimizer(*, start: str = "", **config: Any) -> BacktestSettings:
    given = {"procedure": 2, "rebalance_frequency": "daily", "transaction_costs": 0.0, **config}
    return BacktestSettings.from_spec({"date_range": {"start": start}, "config": given}, has_optimizer=True)


def panel(seed: int = 1, members: int = 6, sessions: int = 60) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return closes and values with gaps, one late listing and one early end."""
    chance = np.random.default_rng(seed)
    closes = 50.0 * np.exp(np.cumsum(chance.normal(0.0, 0.02, (members, sessions)), axis=1))
    lines = {f"m{number}": [float(value) for value in line] for number, line in enumerate(closes)}
    prices: dict[str, list[float | None]] = {
        name: [None if chance.random() < 0.05 else value for value in line] for name, line in lines.items()
    }
    prices["m0"][:10], prices["m1"][50:] = [None] * 10, [None] * (sessions - 50)
    signal = {name: [float(value) for value in chance.normal(size=sessions)] for name in lines}
    return table("close", prices), table("value", signal)


def navs(result: BacktestResult) -> list[float]:
    return result.equity_curve["nav"].to_list()


def carried_returns(prices: pl.DataFrame, until: dt.date) -> pd.DataFrame:
    """Return the returns of carried closes in plain pandas."""
    wide = prices.drop_nulls().to_pandas().set_index(["date", "entity"])["close"].unstack("entity").ffill()  # noqa: PD010 - a series has no pivot_table
    returns = (wide / wide.shift(1) - 1.0).iloc[1:]
    return returns[returns.index <= pd.Timestamp(until)]


def test_it_gets_the_values_of_all_that_may_be_chosen_and_the_returns_until_then() -> None:
    prices, signal = panel()
    optimizer = Recorder(evenly)
    result = run(prices, [signal], with_optimizer(start="2020-01-20"), optimizer=optimizer)
    has_close = {(row[0], row[1]) for row in prices.drop_nulls().iter_rows()}
    values = {(day, name): value for day, name, value in signal.iter_rows()}
    assert len(optimizer.asked) == result.metrics["decisions"]
    for day, (scores, returns) in zip(result.equity_curve["date"], optimizer.asked, strict=True):
        names = [f"m{number}" for number in range(6) if (day, f"m{number}") in has_close]
        assert scores == {name: values[day, name] for name in names}
        expected = carried_returns(prices, day)
        assert returns["date"].to_list() == [stamp.date() for stamp in expected.index]
        assert returns.columns == ["date", *expected.columns]
        found = returns.drop("date").to_numpy().astype(float)
        np.testing.assert_allclose(found, expected.to_numpy(), rtol=1e-12, atol=1e-15)


def test_a_planted_future_price_changes_no_earlier_decision() -> None:
    prices, signal = panel()
    plain, planted = Recorder(evenly), Recorder(evenly)
    last = WEEKDAYS[40]
    changed = prices.with_columns(
        pl.when(pl.col("date") > last).then(pl.col("close") * 7.0).otherwise(pl.col("close")).alias("close")
    )
    before = run(prices, [signal], with_optimizer(start="2020-01-20"), optimizer=plain)
    after = run(changed, [signal], with_optimizer(start="2020-01-20"), optimizer=planted)
    compared = 0
    for day, one, other in zip(before.equity_curve["date"], plain.asked, planted.asked, strict=True):
        if day <= last:
            assert one[0] == other[0]
            assert one[1].equals(other[1], null_equal=True)
            assert one[1]["date"].max() == day
            compared += 1
    assert compared > 20
    assert navs(before)[:compared] == navs(after)[:compared]


def test_it_gets_no_more_sessions_than_it_needs() -> None:
    prices, signal = panel()
    optimizer = Recorder(evenly, sessions=7)
    run(prices, [signal], with_optimizer(start="2020-02-03"), optimizer=optimizer)
    assert {returns.height for _, returns in optimizer.asked} == {7}


def test_equal_weights_of_an_optimizer_are_those_of_the_weighting_equal() -> None:
    prices, signal = panel(members=4)
    complete = table("close", {name: [1.0 + i + 0.1 * j for j in range(60)] for i, name in enumerate("abcd")})
    values = table("value", {name: [float((i * j) % 5) for j in range(60)] for i, name in enumerate("abcd")})
    assert prices.height
    assert signal.height
    asked = run(complete, [values], with_optimizer(start="2020-01-20"), optimizer=Recorder(evenly))
    shared = run(complete, [values], settings(start="2020-01-20", top_n=4))
    assert navs(asked) == pytest.approx(navs(shared), rel=1e-12)


def test_a_built_in_optimizer_decides_walk_forward() -> None:
    """The weights after each execution are those that a direct call gives for the decision's date."""
    prices, signal = panel(members=5)
    complete = prices.filter(pl.col("entity").is_in(["m2", "m3", "m4"])).drop_nulls()
    complete = complete.filter(pl.len().over("date") == 3)
    values = signal.filter(pl.col("entity").is_in(["m2", "m3", "m4"]))
    optimizer = MinimumCVaROptimizer({"lookback": 30}, {"max_weight": 0.6})
    result = run(complete, [values], with_optimizer(start="2020-02-17"), optimizer=optimizer)
    days = result.equity_curve["date"].to_list()
    held = {(row[0], row[1]): row[2] for row in result.weights_history.iter_rows()}
    for decision, execution in itertools.pairwise(days):
        returns = carried_returns(complete, decision)
        window = pl.DataFrame({"date": list(returns.index), **{n: returns[n].tolist() for n in returns}})
        scores = dict.fromkeys(("m2", "m3", "m4"), 1.0)
        expected = optimizer.optimize(scores, window).weights
        for name, weight in expected.items():
            assert held.get((execution, name), 0.0) == pytest.approx(weight, abs=1e-6)


def test_top_n_says_how_many_of_the_highest_values_it_gets() -> None:
    prices, signal = panel()
    optimizer = Recorder(evenly)
    run(prices, [signal], with_optimizer(start="2020-01-20", top_n=2), optimizer=optimizer)
    for (scores, _), everything in zip(optimizer.asked, _all_scores(prices, signal), strict=True):
        assert scores == dict(sorted(sorted(everything.items(), key=lambda one: -one[1])[:2]))


def _all_scores(prices: pl.DataFrame, signal: pl.DataFrame) -> list[dict[str, float]]:
    optimizer = Recorder(evenly)
    run(prices, [signal], with_optimizer(start="2020-01-20"), optimizer=optimizer)
    return [scores for scores, _ in optimizer.asked]


def test_what_cannot_be_bought_stays_cash() -> None:
    """Of three thirds one has no close at the execution: two are bought, and a third of the capital earns nothing."""
    prices = table("close", {"a": [10.0, 10.0, 20.0], "b": [10.0, N, 20.0], "c": [10.0, 10.0, 20.0]})
    signal = table("value", {name: [1.0] for name in "abc"})
    result = run(prices, [signal], with_optimizer(initial_capital=300.0), optimizer=Recorder(evenly))
    assert navs(result) == pytest.approx([300.0, 300.0, 500.0])
    assert result.metrics["untradable_choices"] == 1


def test_shorts_are_the_optimizers_negative_weights() -> None:
    prices = table("close", {"a": [10.0, 10.0, 11.0], "b": [10.0, 10.0, 12.0]})
    signal = table("value", {name: [1.0] for name in "ab"})
    optimizer = Recorder(lambda _, __: {"a": 1.2, "b": -0.2})
    result = run(prices, [signal], with_optimizer(initial_capital=100.0), optimizer=optimizer)
    assert navs(result) == pytest.approx([100.0, 100.0, 100.0 + 12.0 - 4.0])


def test_no_weights_at_all_sell_everything() -> None:
    prices = table("close", {"a": [10.0, 10.0, 20.0, 40.0, 80.0]})
    signal = table("value", {"a": [1.0, 1.0, 1.0, 1.0, 1.0]})
    optimizer = Recorder(lambda _, returns: {"a": 1.0} if returns.height < 2 else {})
    result = run(prices, [signal], with_optimizer(initial_capital=100.0), optimizer=optimizer)
    assert navs(result) == pytest.approx([100.0, 100.0, 200.0, 400.0, 400.0])


def test_a_decision_without_a_solution_keeps_the_holdings_and_is_counted() -> None:
    prices = table("close", {"a": [10.0] * 3 + [20.0] * 3, "b": [10.0] * 6})
    signal = table("value", {name: [1.0] * 6 for name in "ab"})

    def answer(scores: Mapping[str, float], returns: pl.DataFrame) -> dict[str, float]:
        if returns.height == 1:
            raise NoSolution("constraints.max_weight: too low")
        if returns.height == 2:
            raise NoDataInRange("too little history")
        return evenly(scores, returns) if returns.height != 3 else {"a": 0.0, "b": 1.0}

    result = run(prices, [signal], with_optimizer(initial_capital=100.0), optimizer=Recorder(answer))
    assert result.metrics["decisions_without_solution"] == 2
    assert result.metrics["decisions_without_choice"] == 0
    assert result.metrics["decisions"] == 6
    said = "\n".join(result.metrics["warnings"])
    assert (
        f"at 2 of 6 decisions, and the holdings stayed as they were; the first is {WEEKDAYS[1]}: constraints.max_weight"
        in said
    )
    # Halves are bought on the second day, and kept until the decision of the fourth one is executed on the fifth.
    assert navs(result) == pytest.approx([100.0, 100.0, 100.0, 150.0, 150.0, 150.0])
    assert result.trades["date"].to_list() == [WEEKDAYS[1]] * 2 + [WEEKDAYS[4]] * 2 + [WEEKDAYS[5]] * 2


def test_an_optimizer_that_never_finds_weights_fails_the_run() -> None:
    prices, signal = panel()
    optimizer = EqualWeightOptimizer({"lookback": 5000})

    def never(_: Mapping[str, float], __: pl.DataFrame) -> dict[str, float]:
        raise NoSolution("constraints.max_weight: too low")

    with pytest.raises(
        NoSolution, match=r"any of 4\d decisions; at the first, on 2020-01-20: constraints.max_weight"
    ):
        run(prices, [signal], with_optimizer(start="2020-01-20"), optimizer=Recorder(never))
    assert run(prices, [signal], with_optimizer(start="2020-01-20"), optimizer=optimizer).metrics[
        "executions"
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"stranger": 1.0}, "stranger"),
        ({"m2": float("nan")}, "m2"),
        ({"m2": "much"}, "m2"),
        ({"m2": True}, "m2"),
    ],
)
def test_weights_that_are_none_fail_the_run(answer: dict[str, Any], said: str) -> None:
    prices, signal = panel()
    with pytest.raises(PluginInvalid, match=said):
        run(prices, [signal], with_optimizer(start="2020-02-03"), optimizer=Recorder(lambda _, __: answer))


@pytest.mark.parametrize(
    ("config", "has_optimizer", "setting"),
    [
        ({"procedure": 1}, True, "config.procedure"),
        ({}, True, "config.procedure"),
        ({"procedure": 2, "weighting": "equal"}, True, "config.weighting"),
        ({"procedure": 2, "weighting": "optimizer"}, False, "config.weighting"),
        ({"procedure": 2, "long_short": True}, True, "config.long_short"),
    ],
)
def test_settings_that_do_not_fit_an_optimizer_are_refused(
    config: dict[str, Any], has_optimizer: bool, setting: str
) -> None:
    with pytest.raises(InvalidConfig, match=setting):
        BacktestSettings.from_spec({"config": config}, has_optimizer=has_optimizer)
