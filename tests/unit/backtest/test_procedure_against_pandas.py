"""The backtest against an independent recomputation, on real prices and on small random panels."""

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.datasets import load_sp500_dataset

from optaic.plugins import NoDataInRange
from support.backtest_reference import Reference, recompute
from worker.backtest import BacktestResult, BacktestSettings, run


def to_long(wide: pd.DataFrame, column: str) -> pl.DataFrame:
    long = {
        "date": np.repeat(wide.index.to_numpy(), len(wide.columns)),
        "entity": list(wide.columns) * len(wide),
        column: wide.to_numpy(dtype=float).ravel(),
    }
    schema = {"entity": pl.String, column: pl.Float64}
    frame = pl.DataFrame(long, schema_overrides=schema).with_columns(pl.col("date").cast(pl.Date))
    return frame.fill_nan(None).drop_nulls()


def check_agreement(result: BacktestResult, reference: Reference) -> None:
    equity = result.equity_curve
    assert equity["date"].to_list() == [date.date() for date in reference.nav.index]
    np.testing.assert_allclose(equity["nav"].to_numpy(), reference.nav.to_numpy(), rtol=1e-9)
    np.testing.assert_allclose(equity["benchmark"].to_numpy(), reference.benchmark.to_numpy(), rtol=1e-9)
    for name, expected in reference.metrics.items():
        actual = result.metrics[name]
        assert (actual is None) == (expected is None), name
        # A ratio of nearly equal returns amplifies rounding: both agree that it is defined, that is enough there.
        if expected is not None and (name != "sharpe_ratio" or (reference.metrics["volatility"] or 0) > 1e-9):
            assert actual == pytest.approx(expected, rel=1e-7, abs=1e-9), name
    check_trades(result, reference)
    weights = {(date, entity): weight for date, entity, weight in result.weights_history.iter_rows()}
    assert weights == pytest.approx(
        {(d.date(), e): w for d, held in reference.weights.items() for e, w in held.items()},
        rel=1e-9,
        abs=1e-12,
    )
    returns = result.daily_returns
    assert returns["date"].to_list() == equity["date"].to_list()[1:]
    np.testing.assert_allclose(returns["return"], reference.nav.pct_change().iloc[1:], rtol=1e-7, atol=1e-12)


def check_trades(result: BacktestResult, reference: Reference) -> None:
    """Trades of nothing but rounding may be there or not."""
    nothing = 1e-9 * float(result.metrics["initial_capital"] or 0)
    actual = {
        (row["date"], row["decision_date"], row["entity"]): row["trade_value"]
        for row in result.trades.iter_rows(named=True)
        if abs(row["trade_value"]) > nothing
    }
    expected: dict[Any, Any] = {
        (row["date"].date(), row["decision_date"].date(), row["entity"]): row["trade_value"]  # type: ignore[attr-defined] # a Timestamp
        for row in reference.trades
        if abs(row["trade_value"]) > nothing  # type: ignore[arg-type] # a float
    }
    assert actual == pytest.approx(expected, rel=1e-6, abs=nothing)


@pytest.fixture(scope="module")
def closes() -> pd.DataFrame:
    return load_sp500_dataset()


@pytest.fixture(scope="module")
def momentum(closes: pd.DataFrame) -> pd.DataFrame:
    raw = closes.shift(21) / closes.shift(252) - 1
    return raw.sub(raw.mean(axis=1), axis=0).div(raw.std(axis=1, ddof=1), axis=0).clip(-3, 3)


CONFIGS: list[dict[str, Any]] = [
    {"start": "2015-01-02"},
    {"start": "2015-01-02", "end": "2021-12-31"},
    {"start": "2016-03-10", "end": "2018-07-05", "frequency": "weekly", "slippage": "fixed", "rate": 0.0005},
    {"start": "2017-01-01", "end": "2019-12-31", "frequency": "daily", "slippage": "linear", "rate": 0.1},
    {"start": "1990-01-02", "end": "1992-06-30", "top_n": 3, "benchmark": "GE"},
    {
        "start": "2020-01-02",
        "universe": ["AAPL", "MSFT", "XOM"],
        "top_n": 7,
        "commission": 0.0,
        "benchmark": "JPM",
    },
    {"start": "2022-12-28"},
    {"start": "2022-12-27", "capital": 100.0, "frequency": "daily"},
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config.values())))
def test_backtest_of_real_prices_equals_the_pandas_reference(
    closes: pd.DataFrame, momentum: pd.DataFrame, config: dict[str, Any]
) -> None:
    years = slice(str(pd.Timestamp(config["start"]).year), None)
    reference = recompute(closes, momentum, **config)
    result = run(
        to_long(closes.loc[years], "close"), [to_long(momentum.loc[years], "value")], make_settings(config)
    )
    check_agreement(result, reference)


def make_settings(config: dict[str, Any]) -> BacktestSettings:
    """The public specification of a reference's arguments."""
    names = {
        "frequency": "rebalance_frequency",
        "commission": "transaction_costs",
        "slippage": "slippage_model",
        "rate": "slippage_rate",
        "top_n": "top_n",
        "capital": "initial_capital",
    }
    assets = {name: config[name] for name in ("universe", "benchmark") if name in config}
    dates = {name: config[name] for name in ("start", "end") if name in config}
    given_config = {public: config[name] for name, public in names.items() if name in config}
    return BacktestSettings.from_spec({"assets": assets, "date_range": dates, "config": given_config})


@st.composite
def panels(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Few sessions and entities; missing prices, ties, sessions without any signal, fewer values than wanted."""
    count, members = draw(st.integers(1, 45)), draw(st.integers(1, 4))
    first = draw(st.dates(dt.date(2019, 11, 1), dt.date(2020, 12, 31)))
    dates = pd.bdate_range(first, periods=count)
    names = [f"{letter}{letter}" for letter in "dbca"[:members]]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (count, members)
    prices = pd.DataFrame(50 * np.exp(rng.normal(0, 0.05, shape).cumsum(axis=0)), index=dates, columns=names)
    prices[rng.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.2]))] = np.nan
    signal = pd.DataFrame(rng.integers(-1, 3, shape).astype(float), index=dates, columns=names)
    signal[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.8]))] = np.nan
    signal[rng.random(count) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = np.nan
    slippage = draw(st.sampled_from(["none", "fixed", "linear"]))
    config: dict[str, Any] = {
        "frequency": draw(st.sampled_from(["daily", "weekly", "monthly"])),
        "commission": draw(st.sampled_from([0.0, 0.001, 0.02])),
        "slippage": slippage,
        "rate": {"none": 0.0, "fixed": 0.0005, "linear": 0.1}[slippage],
        "top_n": draw(st.integers(1, 5)),
        "capital": draw(st.sampled_from([1_000_000.0, 1.0])),
    }
    if draw(st.booleans()):
        config["universe"] = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    if draw(st.booleans()):
        config["start"] = str(dates[draw(st.integers(0, count - 1))].date())
    return prices, signal, config


@settings(max_examples=300, deadline=None)
@given(panel=panels())
def test_backtest_of_random_panels_equals_the_pandas_reference(
    panel: tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]],
) -> None:
    prices, signal, config = panel
    known = prices.dropna(axis=1, how="all").columns
    members = config.get("universe", list(known))
    if not set(members) <= set(known):
        return  # a member without any price: another error, tested elsewhere
    prices = prices[known]
    session_count = len(prices[members].dropna().loc[config.get("start") :])
    inputs = to_long(prices, "close"), [to_long(signal, "value")], make_settings(config)
    if not members or session_count == 0:
        with pytest.raises(NoDataInRange):
            run(*inputs)
        return
    check_agreement(run(*inputs), recompute(prices, signal, **config))
