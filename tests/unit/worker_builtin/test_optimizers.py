"""Optimizers on real returns: the weights keep the limits, and are the best that a search can find."""

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest

from optaic.plugins import InvalidConfig, NoDataInRange, NoSolution, Optimizer, SchemaMismatch
from worker.builtin.optimizers import (
    EqualWeightOptimizer,
    HierarchicalRiskParityOptimizer,
    MeanVarianceOptimizer,
    MinimumCVaROptimizer,
    RiskBudgetingOptimizer,
)
from worker.builtin.prices import load_closes
from worker.optimization.returns import returns_of

NAMES = ["AAPL", "BAC", "GE", "JNJ", "KO", "XOM"]
SCORES = {name: float(rank) for rank, name in enumerate(reversed(NAMES))}
CONSTRAINED: list[type[Optimizer]] = [
    MeanVarianceOptimizer,
    MinimumCVaROptimizer,
    RiskBudgetingOptimizer,
    HierarchicalRiskParityOptimizer,
]
ALL = [*CONSTRAINED, EqualWeightOptimizer]


@pytest.fixture(scope="module")
def returns() -> pl.DataFrame:
    closes = load_closes().filter(
        pl.col("date").is_between(dt.date(2019, 1, 2), dt.date(2021, 12, 31)) & pl.col("entity").is_in(NAMES)
    )
    return returns_of(closes)


def past(returns: pl.DataFrame, names: list[str], sessions: int = 252) -> Any:
    return returns.tail(sessions).select(names).to_numpy()


def test_returns_are_those_of_the_prices(returns: pl.DataFrame) -> None:
    closes = (
        load_closes().filter(pl.col("entity") == "KO").filter(pl.col("date") >= dt.date(2019, 1, 2))["close"]
    )
    assert returns["KO"][0] == pytest.approx(closes[1] / closes[0] - 1)
    assert returns.height == 756


@pytest.mark.parametrize("optimizer", ALL)
def test_weights_sum_to_one_within_the_limits(returns: pl.DataFrame, optimizer: type[Optimizer]) -> None:
    limits = {} if optimizer is EqualWeightOptimizer else {"min_weight": 0.05, "max_weight": 0.3}
    found = optimizer({}, limits).optimize(SCORES, returns)
    assert list(found.weights) == sorted(NAMES)
    assert sum(found.weights.values()) == pytest.approx(1.0, abs=1e-6)
    assert all(0.05 - 1e-6 <= weight <= 0.3 + 1e-6 for weight in found.weights.values())
    assert found.diagnostics["net_exposure"] == pytest.approx(1.0, abs=1e-6)
    assert 1.0 <= float(found.diagnostics["effective_count"]) <= len(NAMES) + 1e-6


@pytest.mark.parametrize("optimizer", ALL)
def test_only_the_best_scores_are_chosen(returns: pl.DataFrame, optimizer: type[Optimizer]) -> None:
    scores = {**SCORES, "ABSENT": float("nan")}
    assert list(optimizer({"top_n": 3}).optimize(scores, returns).weights) == ["AAPL", "BAC", "GE"]
    assert optimizer({"top_n": 1}).optimize(scores, returns).weights == {"AAPL": 1.0}


@pytest.mark.parametrize("optimizer", ALL)
def test_the_same_input_gives_the_same_weights(returns: pl.DataFrame, optimizer: type[Optimizer]) -> None:
    shuffled = returns.sample(fraction=1.0, shuffle=True, seed=1).select(reversed(returns.columns))
    first, second = (optimizer().optimize(SCORES, given).weights for given in (returns, shuffled))
    assert first == second


def test_the_equal_weight_optimizer_gives_every_asset_the_same_weight(returns: pl.DataFrame) -> None:
    assert EqualWeightOptimizer().optimize(SCORES, returns).weights == pytest.approx(
        dict.fromkeys(NAMES, 1 / 6)
    )


def random_weights(count: int) -> Any:
    return np.random.default_rng(3).dirichlet(np.ones(count), size=20_000)


def test_mean_variance_beats_any_weights_of_a_search(returns: pl.DataFrame) -> None:
    config = {"risk_aversion": 2.0, "skill": 0.1}
    found = np.array(list(MeanVarianceOptimizer(config).optimize(SCORES, returns).weights.values()))
    names = sorted(NAMES)
    sample = past(returns, names)
    scores = np.array([SCORES[name] for name in names])
    mu = 0.1 * (scores - scores.mean()) / scores.std(ddof=1) * sample.std(axis=0, ddof=1)
    covariance = np.cov(sample.T)

    def utility(weights: Any) -> Any:
        return weights @ mu - 2.0 * np.einsum("...i,ij,...j->...", weights, covariance, weights)

    assert utility(found) >= utility(random_weights(6)).max() - 1e-7


def test_a_higher_score_gets_more_weight_when_risk_matters_little(returns: pl.DataFrame) -> None:
    weights = MeanVarianceOptimizer({"risk_aversion": 0.01}).optimize(SCORES, returns).weights
    assert max(weights, key=lambda name: weights[name]) == max(SCORES, key=lambda name: SCORES[name])


def test_minimum_cvar_beats_any_weights_of_a_search(returns: pl.DataFrame) -> None:
    found = np.array(list(MinimumCVaROptimizer({"beta": 0.9}).optimize(SCORES, returns).weights.values()))
    sample = past(returns, sorted(NAMES))

    def cvar(weights: Any) -> Any:
        losses = -np.sort(sample @ weights.T, axis=0)
        worst = 0.1 * len(sample)
        whole = int(worst)
        return (losses[:whole].sum(axis=0) + (worst - whole) * losses[whole]) / worst

    assert cvar(found) <= cvar(random_weights(6)).min() + 1e-6


def test_risk_budgeting_spreads_risk_evenly(returns: pl.DataFrame) -> None:
    found = np.array(list(RiskBudgetingOptimizer().optimize(SCORES, returns).weights.values()))
    covariance = np.cov(past(returns, sorted(NAMES)).T)
    contributions = found * (covariance @ found) / (found @ covariance @ found)
    assert contributions == pytest.approx(np.full(6, 1 / 6), abs=2e-3)


def test_hierarchical_risk_parity_gives_less_weight_to_more_volatile_entities(returns: pl.DataFrame) -> None:
    weights = HierarchicalRiskParityOptimizer().optimize(SCORES, returns).weights
    spread = {name: float(np.std(past(returns, [name]))) for name in NAMES}
    calm, wild = min(spread, key=lambda n: spread[n]), max(spread, key=lambda n: spread[n])
    assert weights[calm] > weights[wild]


def test_the_lookback_limits_the_past_returns(returns: pl.DataFrame) -> None:
    short, long = (MinimumCVaROptimizer({"lookback": n}).optimize(SCORES, returns) for n in (60, 252))
    assert (short.diagnostics["sessions"], long.diagnostics["sessions"]) == (60.0, 252.0)
    assert short.weights != long.weights


@pytest.mark.parametrize("optimizer", CONSTRAINED)
def test_limits_that_nothing_satisfies_are_a_typed_error(
    returns: pl.DataFrame, optimizer: type[Optimizer]
) -> None:
    for limits in ({"max_weight": 0.1}, {"min_weight": 0.3}):
        with pytest.raises(NoSolution):
            optimizer({}, limits).optimize(SCORES, returns)
    for wrong in ({"min_weight": 0.5, "max_weight": 0.2}, {"leverage": 2}, {"max_weight": "much"}):
        with pytest.raises(InvalidConfig):
            optimizer({}, wrong).optimize(SCORES, returns)


@pytest.mark.parametrize("optimizer", ALL)
def test_missing_data_is_a_typed_error(returns: pl.DataFrame, optimizer: type[Optimizer]) -> None:
    with pytest.raises(NoDataInRange, match="score"):
        optimizer().optimize({"AAPL": float("nan")}, returns)
    with pytest.raises(SchemaMismatch, match="ZZZ"):
        optimizer().optimize({**SCORES, "ZZZ": 1.0}, returns)
    with pytest.raises(NoDataInRange, match="sessions"):
        optimizer().optimize(SCORES, returns.tail(5))
    with pytest.raises(InvalidConfig, match="top_n"):
        optimizer({"top_n": 0}).optimize(SCORES, returns)


def test_shorts_are_for_mean_variance_only(returns: pl.DataFrame) -> None:
    config = {"risk_aversion": 0.1, "skill": 0.3}
    weights = MeanVarianceOptimizer(config, {"min_weight": -0.2}).optimize(SCORES, returns).weights
    assert min(weights.values()) < 0
    for optimizer in (RiskBudgetingOptimizer, HierarchicalRiskParityOptimizer):
        with pytest.raises(InvalidConfig, match="short"):
            optimizer({}, {"min_weight": -0.2}).optimize(SCORES, returns)
