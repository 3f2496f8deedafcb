"""The figures of the second procedure, each beside a well-kept library or a formula written once more."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from skfolio import measures as skfolio_measures

from support.small_panels import settings, table
from worker.backtest import BacktestResult, BacktestSettings, run
from worker.backtest.execution import simulate
from worker.backtest.market import prepare
from worker.backtest.measures import measure
from worker.backtest.metrics import compute_metrics, daily_returns


@pytest.fixture
def long_path() -> tuple[BacktestResult, Any, Any, BacktestSettings]:
    numbers = np.random.default_rng(7)
    names = [f"e{number}" for number in range(8)]
    prices = table(
        "close", {name: (50 * np.exp(numbers.normal(0, 0.02, 80).cumsum())).tolist() for name in names}
    )
    signal = table("value", {name: numbers.normal(0, 1, 80).tolist() for name in names})
    given = settings(top_n=3, transaction_costs=0.001, slippage_model="linear", start="2020-01-01")
    prepared = prepare(prices, [signal], None, given)
    return (
        run(prices, [signal], given),
        prepared.panel,
        simulate(prepared.panel, prepared.choices, given),
        given,
    )


def test_figures_equal_those_of_well_kept_libraries(
    long_path: tuple[BacktestResult, Any, Any, BacktestSettings],
) -> None:
    result = long_path[0]
    r, b = (result.daily_returns[name].to_numpy() for name in ("return", "benchmark_return"))
    line = stats.linregress(b, r)
    expected = {
        "beta": line.slope,
        "alpha": line.intercept * 252,
        "skewness": stats.skew(r),
        "excess_kurtosis": stats.kurtosis(r),
        "var_95": skfolio_measures.value_at_risk(r, beta=0.95),
        "cvar_95": skfolio_measures.cvar(r, beta=0.95),
        "sortino_ratio": r.mean() / np.sqrt(np.mean(np.minimum(r, 0) ** 2)) * np.sqrt(252),
        "calmar_ratio": result.metrics["annualized_return"] / skfolio_measures_drawdown(r),
        "up_capture": r[b > 0].mean() / b[b > 0].mean(),
        "down_capture": r[b < 0].mean() / b[b < 0].mean(),
        "hit_rate": (r > 0).mean(),
        "total_commission": result.trades["commission"].sum(),
        "total_slippage": result.trades["slippage"].sum(),
    }
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert result.metrics["total_costs"] == pytest.approx(result.trades["cost"].sum())


def skfolio_measures_drawdown(returns: Any) -> float:
    level = np.concatenate([[1.0], np.cumprod(1 + returns)])
    return float(np.max(1 - level / np.maximum.accumulate(level)))


def test_holding_periods_and_exposure_are_those_of_the_weights(
    long_path: tuple[BacktestResult, Any, Any, BacktestSettings],
) -> None:
    result = long_path[0]
    days = result.equity_curve["date"].to_list()
    held = {(row[0], row[1]) for row in result.weights_history.select("date", "entity").iter_rows()}
    before = {day: days[index - 1] if index else None for index, day in enumerate(days)}
    opened = [(day, entity) for day, entity in held if (before[day], entity) not in held]
    assert result.metrics["average_holding_period"] == pytest.approx(len(held) / len(opened))
    assert result.metrics["average_gross_exposure"] == pytest.approx(
        result.weights_history["weight"].sum() / len(days)
    )


def test_drawdowns_and_months_break_the_path_down(
    long_path: tuple[BacktestResult, Any, Any, BacktestSettings],
) -> None:
    result = long_path[0]
    curve = dict(result.equity_curve.select("date", "nav").iter_rows())
    worst = result.others["drawdowns"]
    assert worst["depth"][0] == pytest.approx(result.metrics["max_drawdown"])
    assert worst["depth"].to_list() == sorted(worst["depth"])
    assert worst.height <= 10
    for row in worst.iter_rows(named=True):
        assert row["depth"] == pytest.approx(curve[row["trough"]] / curve[row["start"]] - 1)
        if row["end"] is not None:
            assert curve[row["end"]] >= curve[row["start"]]
    assert [each["trough"] for each in result.metrics["worst_drawdowns"]] == [
        str(day) for day in worst["trough"]
    ]
    months = result.others["monthly_returns"]
    assert math.prod(1 + value for value in months["return"]) - 1 == pytest.approx(
        result.metrics["total_return"]
    )
    whole = math.prod(1 + value for value in months["benchmark_return"]) - 1
    assert whole == pytest.approx(result.metrics["benchmark_total_return"])
    assert months.select("year", "month").rows()[:2] == [(2020, 1), (2020, 2)]


@pytest.mark.parametrize("sessions", [1, 2, 3])
def test_figures_that_are_not_defined_are_null_and_fail_nothing(sessions: int) -> None:
    prices, signal = table("close", {"a": [10.0] * sessions}), table("value", {"a": [1.0] * sessions})
    metrics = run(prices, [signal], settings()).metrics
    assert (
        metrics["beta"] is metrics["sortino_ratio"] is metrics["calmar_ratio"] is metrics["skewness"] is None
    )
    if sessions == 1:
        assert "nothing was ever executed" in "\n".join(metrics["warnings"])


def test_the_measures_of_a_path_are_those_of_the_run(
    long_path: tuple[BacktestResult, Any, Any, BacktestSettings],
) -> None:
    result, panel, path, given = long_path
    known = compute_metrics(panel, path, given)
    assert {**known, **measure(panel, path, known)}.items() <= result.metrics.items()
    assert daily_returns(path.nav).tolist() == result.daily_returns["return"].to_list()
