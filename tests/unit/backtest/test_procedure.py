"""The rules of the procedure one by one, on panels small enough to compute by hand."""

import datetime as dt
from collections.abc import Sequence

import polars as pl
import pytest

from optaic.plugins import (
    InvalidConfig,
    MissingInput,
    NoDataInRange,
    PluginError,
    SchemaMismatch,
    UnknownEntity,
)
from worker.backtest import BacktestSettings, run
from worker.backtest.sessions import find_decisions
from worker.backtest.settings import Frequency, Slippage

DAYS = [dt.date(2020, 1, day) for day in (29, 30, 31)] + [dt.date(2020, 2, day) for day in (3, 4, 5)]


def panel(column: str, values: dict[str, Sequence[float | None]]) -> pl.DataFrame:
    rows = [(day, name, line[i]) for name, line in values.items() for i, day in enumerate(DAYS[: len(line)])]
    return pl.DataFrame(rows, schema={"date": pl.Date, "entity": pl.String, column: pl.Float64}, orient="row")


FLAT = panel("close", {"a": [10.0] * 6, "b": [20.0] * 6, "c": [5.0] * 6})
DAILY = BacktestSettings(rebalance_frequency=Frequency.DAILY, transaction_costs=0.0, top_n=1)


def test_the_smallest_specification_is_valid() -> None:
    spec = {
        "assets": {"universe": ["a", "b"], "benchmark": "equal_weight"},
        "signals": {"primary": "x", "secondary": []},
        "date_range": {"start": "2020-01-30", "end": ""},
        "config": {"rebalance_frequency": "daily", "transaction_costs": 0.001, "slippage_model": "linear"},
    }
    settings = BacktestSettings.from_spec(spec)
    assert settings == BacktestSettings(
        universe=("a", "b"),
        start=dt.date(2020, 1, 30),
        rebalance_frequency=Frequency.DAILY,
        slippage_model=Slippage.LINEAR,
        slippage_rate=0.1,
    )
    assert BacktestSettings.from_spec({}) == BacktestSettings()
    # Up to what the contract admits.
    assert BacktestSettings.from_spec({"config": {"transaction_costs": 0.7}}).transaction_costs == 0.7


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ({"config": {"top_n": 2.5}}, "top_n: must be a whole number"),
        ({"config": {"top_n": 0}}, "top_n: must be between 1"),
        ({"config": {"rebalance_frequency": "hourly"}}, "daily, weekly, monthly"),
        ({"config": {"transaction_costs": -0.1}}, "transaction_costs"),
        ({"config": {"transaction_costs": "free"}}, "finite number"),
        ({"config": {"initial_capital": float("nan")}}, "finite number"),
        ({"config": {"top_n": True}}, "finite number"),
        ({"config": []}, "config: must be an object"),
        ({"date_range": {"start": "yesterday"}}, "like 2022-12-28"),
        ({"date_range": {"start": "2020-02-01", "end": "2020-01-01"}}, "before it starts"),
        ({"assets": {"universe": "AAPL"}}, "list of texts"),
        ({"assets": {"universe": ["a", "a"]}}, "twice"),
    ],
)
def test_a_wrong_setting_is_named(spec: dict[str, object], part: str) -> None:
    with pytest.raises(InvalidConfig, match=part):
        BacktestSettings.from_spec(spec)


def test_decisions_are_the_first_session_and_the_last_of_each_period() -> None:
    assert find_decisions(DAYS, Frequency.MONTHLY) == [0, 2, 5]
    assert find_decisions(DAYS, Frequency.WEEKLY) == [0, 2, 5]
    assert find_decisions(DAYS, Frequency.DAILY) == [0, 1, 2, 3, 4, 5]
    around_new_year = [dt.date(2020, 12, 30), dt.date(2021, 1, 1), dt.date(2021, 1, 4), dt.date(2022, 1, 4)]
    # 30 December 2020 and 1 January 2021 are in one ISO week.
    assert find_decisions(around_new_year, Frequency.WEEKLY) == [0, 1, 2, 3]
    assert find_decisions(around_new_year[:2], Frequency.MONTHLY) == [0, 1]


def test_a_decision_is_executed_at_the_next_close_and_the_last_one_never() -> None:
    signal = panel("value", {"a": [1, 0, 0, 0, 0, 9], "b": [0, 1, 1, 1, 1, 0]})
    result = run(FLAT, [signal], DAILY)
    bought = [
        (row["date"], row["decision_date"], row["entity"]) for row in result.trades.iter_rows(named=True)
    ]
    assert bought == [(DAYS[1], DAYS[0], "a"), (DAYS[2], DAYS[1], "a"), (DAYS[2], DAYS[1], "b")]
    assert result.metrics["executions"] == 5


def test_costs_scale_positions_and_are_paid_from_the_value() -> None:
    """100 % of 1,000,000 bought at 1 %: 10,000 of costs, 990,000 left, all of it invested."""
    settings = BacktestSettings(transaction_costs=0.01, top_n=1)
    result = run(FLAT, [panel("value", {"a": [1.0] * 6})], settings)
    assert result.equity_curve["nav"].to_list()[:2] == [1_000_000.0, 990_000.0]
    assert result.weights_history["weight"].to_list() == pytest.approx([1.0] * 5)
    assert result.trades["cost"].to_list() == pytest.approx([10_000.0])


@pytest.mark.parametrize(
    ("model", "rate", "expected"),
    [(Slippage.NONE, 9.0, 0.0), (Slippage.FIXED, 0.02, 20_000.0), (Slippage.LINEAR, 0.1, 50_000.0)],
)
def test_each_slippage_model_charges_its_cost(model: Slippage, rate: float, expected: float) -> None:
    """Two purchases of half the value: linear is 0.1 x (1/2) x 500,000, twice."""
    settings = BacktestSettings(transaction_costs=0.0, slippage_model=model, slippage_rate=rate, top_n=2)
    result = run(FLAT, [panel("value", {"a": [1.0] * 2, "b": [2.0] * 2})], settings)
    assert result.trades["slippage"].sum() == pytest.approx(expected)


def test_ties_are_resolved_by_name_and_null_is_never_selected() -> None:
    signal = panel("value", {"c": [1.0, None], "b": [1.0, None], "a": [None, float("nan")]})
    result = run(FLAT, [signal], DAILY)
    assert result.trades["entity"].to_list() == ["b"]


def test_fewer_than_n_entities_get_equal_weights_and_zero_entities_keep_the_holdings() -> None:
    signal = panel("value", {"a": [1.0, None, None], "b": [2.0, None, None]})
    result = run(FLAT, [signal], BacktestSettings(rebalance_frequency=Frequency.DAILY, transaction_costs=0.0))
    assert result.trades["weight_target"].to_list() == [0.5, 0.5]
    assert result.weights_history.height == 2 * 5
    assert result.metrics["executions"] == 1


def test_without_any_signal_the_capital_stays_cash() -> None:
    result = run(FLAT, [panel("value", {"a": [None] * 6})], DAILY)
    assert result.metrics["total_return"] == 0.0
    assert result.metrics["sharpe_ratio"] is None
    assert result.metrics["turnover"] == 0.0
    assert result.trades.is_empty()
    assert result.weights_history.schema == {"date": pl.Date, "entity": pl.String, "weight": pl.Float64}


def test_returns_that_differ_by_rounding_only_have_no_sharpe_ratio() -> None:
    prices = panel("close", {"a": [51.747330, 48.683298, 48.614842]})
    signal = panel("value", {"a": [None, 2.0, None]})
    settings = BacktestSettings(
        rebalance_frequency=Frequency.DAILY, transaction_costs=0.0, top_n=1, initial_capital=1.0
    )
    metrics = run(prices, [signal], settings).metrics
    assert metrics["volatility"] != 0
    assert metrics["sharpe_ratio"] is None


def test_sessions_need_a_close_of_every_member() -> None:
    prices = panel(
        "close", {"a": [1.0, 1.0, None, 1.0, 1.0, 1.0], "b": [1.0, 1.0, 1.0, 1.0, float("nan"), 1.0]}
    )
    signal = panel("value", {"a": [1.0] * 6})
    assert run(prices, [signal], DAILY).equity_curve["date"].to_list() == [DAYS[i] for i in (0, 1, 3, 5)]
    only_a = BacktestSettings(universe=("a",))
    assert run(prices, [signal], only_a).metrics["sessions"] == 5


def test_one_session_has_no_annual_figures() -> None:
    settings = BacktestSettings(start=DAYS[-1])
    metrics = run(FLAT, [panel("value", {"a": [1.0] * 6})], settings).metrics
    assert metrics["sessions"] == 1
    undefined = [name for name, value in metrics.items() if value is None]
    assert {"annualized_return", "volatility", "sharpe_ratio", "turnover"} <= set(undefined)


def test_a_benchmark_entity_need_not_be_a_member() -> None:
    prices = panel("close", {"a": [1.0] * 3, "spy": [100.0, 110.0, 121.0]})
    settings = BacktestSettings(universe=("a",), benchmark="spy", initial_capital=10.0)
    result = run(prices, [panel("value", {"a": [1.0]})], settings)
    assert result.equity_curve["benchmark"].to_list() == pytest.approx([10.0, 11.0, 12.1])
    assert result.metrics["benchmark_total_return"] == pytest.approx(0.21)


def test_a_backtest_that_cannot_be_simulated_is_a_typed_error() -> None:
    signal = panel("value", {"a": [1.0] * 6})
    with pytest.raises(NoDataInRange, match="2030-01-01"):
        run(FLAT, [signal], BacktestSettings(start=dt.date(2030, 1, 1)))
    with pytest.raises(NoDataInRange):
        run(FLAT.clear(), [signal], BacktestSettings())
    with pytest.raises(UnknownEntity, match="zzz"):
        run(FLAT, [signal], BacktestSettings(universe=("a", "zzz")))
    with pytest.raises(UnknownEntity, match="SPY"):
        run(FLAT, [signal], BacktestSettings(benchmark="SPY"))
    with pytest.raises(MissingInput):
        run(FLAT, [], BacktestSettings())
    with pytest.raises(SchemaMismatch, match="several rows"):
        run(FLAT.vstack(FLAT), [signal], BacktestSettings())
    with pytest.raises(SchemaMismatch, match="'close'"):
        run(FLAT.rename({"close": "price"}), [signal], BacktestSettings())
    with pytest.raises(SchemaMismatch, match="not positive"):
        run(panel("close", {"a": [1.0, 0.0]}), [signal], BacktestSettings())
    gap = panel("close", {"a": [1.0] * 3, "spy": [100.0, 110.0]})
    with pytest.raises(NoDataInRange, match=r"^assets\.benchmark: spy has no close on 1 sessions"):
        run(gap, [signal], BacktestSettings(universe=("a",), benchmark="spy"))
    with pytest.raises(PluginError) as caught:
        run(FLAT, [signal], BacktestSettings(slippage_model=Slippage.LINEAR, slippage_rate=2.0))
    assert caught.value.type == "CostsExceedCapital"


def test_progress_is_reported() -> None:
    told: list[float] = []
    run(FLAT, [panel("value", {"a": [1.0]})], DAILY, lambda fraction, _: told.append(fraction))
    assert told == sorted(told)
    assert len(told) >= 3
