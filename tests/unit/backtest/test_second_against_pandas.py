"""The second procedure against an independent recomputation, on panels with every kind of hole."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.plugins import PluginError
from support.backtest_reference_2 import (
    CapitalGoneError,
    Expected,
    NoSessionError,
    NothingDecidedError,
    recompute,
)
from worker.backtest import BacktestResult, BacktestSettings, run

PUBLIC = {
    "frequency": "rebalance_frequency",
    "commission": "transaction_costs",
    "slippage": "slippage_model",
    "rate": "slippage_rate",
    "top_n": "top_n",
    "capital": "initial_capital",
    "missing": "missing_prices",
    "coverage": "min_session_coverage",
    "delisting_after": "delisting_after",
    "delisting_return": "delisting_return",
    "weighting": "weighting",
    "long_short": "long_short",
}
RATES = {"none": 0.0, "fixed": 0.0005, "linear": 0.005, "volume": 0.1}


def make_settings(config: dict[str, Any]) -> BacktestSettings:
    """The public specification of a reference's arguments."""
    return BacktestSettings.from_spec(
        {
            "assets": {name: config[name] for name in ("universe", "benchmark") if name in config},
            "date_range": {name: config[name] for name in ("start", "end") if config.get(name)},
            "config": {"procedure": 2, **{PUBLIC[name]: config[name] for name in PUBLIC if name in config}},
        }
    )


def to_polars(table: pd.DataFrame) -> pl.DataFrame:
    columns = {name: table[name].to_list() for name in table.columns}
    columns["date"] = [day.date() for day in table["date"]]
    kinds = {"date": pl.Date, "entity": pl.String}
    return pl.DataFrame(columns, schema={name: kinds.get(name, pl.Float64) for name in columns})


def check(result: BacktestResult, expected: Expected, capital: float) -> None:
    equity, metrics = result.equity_curve, result.metrics
    assert equity["date"].to_list() == [day.date() for day in expected.sessions]
    np.testing.assert_allclose(equity["nav"], expected.nav, rtol=1e-9, atol=1e-9 * capital)
    np.testing.assert_allclose(equity["benchmark"], expected.benchmark, rtol=1e-9)
    nothing = 1e-9 * capital
    actual = {
        (row["date"], row["decision_date"], row["entity"]): row["trade_value"]
        for row in result.trades.iter_rows(named=True)
        if abs(row["trade_value"]) > nothing
    }
    wanted = {
        (day.date(), decided and decided.date(), entity): value
        for day, decided, entity, value in expected.trades
        if abs(value) > nothing
    }
    assert actual == pytest.approx(wanted, rel=1e-6, abs=nothing)
    assert metrics["total_costs"] == pytest.approx(expected.costs, rel=1e-9, abs=nothing)
    assert metrics["executions"] == expected.executions
    counts = expected.counts
    assert metrics["thin_dates"] + metrics["dropped_sessions"] == counts["left_out"]
    assert metrics["stale_prices"] == counts["stale"]
    assert metrics["delisted"] == sorted(counts["sold"])
    assert (metrics["sessions_before_start"], metrics["warmup_sessions"]) == (
        counts["before"],
        counts["warmup"],
    )


@st.composite
def panels(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Prices with late listings, delistings, gaps, suspensions and stray dates; signals with holes and foreign dates."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, members = draw(st.integers(2, 60)), draw(st.integers(1, 6))
    first = draw(st.dates(dt.date(2019, 11, 1), dt.date(2020, 12, 31)))
    dates = pd.bdate_range(first, periods=count)
    names = [f"{letter}{letter}" for letter in "dbcafe"[:members]]
    shape = (count, members)
    closes = pd.DataFrame(50 * np.exp(rng.normal(0, 0.05, shape).cumsum(axis=0)), index=dates, columns=names)
    closes[rng.random(shape) < draw(st.sampled_from([0.0, 0.01, 0.15]))] = np.nan
    for name in names:
        kind = rng.random()
        begin, length = int(rng.integers(0, count)), int(rng.integers(1, 40))
        if kind < 0.2:
            closes.loc[dates[:begin], name] = np.nan
        elif kind < 0.45:
            closes.loc[dates[begin:], name] = np.nan
        elif kind < 0.6:
            closes.loc[dates[begin : begin + length], name] = np.nan
    signal = pd.DataFrame(rng.integers(-1, 4, shape).astype(float), index=dates, columns=names)
    signal[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.8]))] = np.nan
    signal.iloc[: draw(st.sampled_from([0, 0, 10]))] = np.nan
    prices = (
        closes.rename_axis("date").reset_index().melt("date", var_name="entity", value_name="close").dropna()
    )
    strays = [(day + pd.Timedelta(days=1), rng.choice(names), 40.0) for day in dates if day.weekday() == 4]
    strays = [each for each in strays if rng.random() < draw(st.sampled_from([0.0, 0.4]))]
    prices = pd.concat([prices, pd.DataFrame(strays, columns=["date", "entity", "close"])])
    volumes = np.where(rng.random(len(prices)) < 0.2, 0.0, rng.uniform(1, 20_000, len(prices)))
    prices["volume"] = np.where(rng.random(len(prices)) < 0.1, np.nan, volumes)
    slippage = draw(st.sampled_from(["none", "fixed", "linear", "volume"]))
    config: dict[str, Any] = {
        "frequency": draw(st.sampled_from(["daily", "weekly", "monthly"])),
        "commission": draw(st.sampled_from([0.0, 0.001, 0.02])),
        "slippage": slippage,
        "rate": RATES[slippage],
        "top_n": draw(st.integers(1, 4)),
        "capital": draw(st.sampled_from([1_000_000.0, 1.0])),
        "missing": draw(st.sampled_from(["carry", "carry", "carry", "drop_session"])),
        "coverage": draw(st.sampled_from([0.5, 0.0, 1.0, 0.34])),
        "delisting_after": draw(st.sampled_from([21, 0, 3])),
        "delisting_return": draw(st.sampled_from([0.0, -0.3, -1.0])),
        "weighting": draw(st.sampled_from(["equal", "signal"])),
        "long_short": draw(st.booleans()),
    }
    if draw(st.booleans()):
        config["start"] = str(dates[draw(st.integers(0, count // 2))].date())
    if draw(st.sampled_from([False, False, True])):
        config["end"] = str(dates[draw(st.integers(count // 2, count - 1))].date())
    chosen = draw(st.sampled_from(["all", "universe", "membership"]))
    if chosen == "universe":
        config["universe"] = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    if chosen == "membership":
        rows = [(day, name) for day in dates for name in names if rng.random() < 0.7]
        rows += [(dates[0], "zz")]
        config["membership"] = pd.DataFrame(rows, columns=["date", "entity"])
    if draw(st.sampled_from([False, False, True])):
        config["benchmark"] = draw(st.sampled_from(names))
    values = (
        signal.rename_axis("date").reset_index().melt("date", var_name="entity", value_name="value").dropna()
    )
    return prices.reset_index(drop=True), values, config


@settings(max_examples=250, deadline=None)
@given(panel=panels())
def test_random_panels_equal_the_pandas_reference(
    panel: tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]],
) -> None:
    prices, signal, config = panel
    known = set(prices["entity"])
    if not set(config.get("universe", [])) <= known or config.get("benchmark", "equal_weight") not in {
        *known,
        "equal_weight",
    }:
        return  # without any price: another error, tested elsewhere
    membership = config.get("membership")
    if membership is not None and not set(membership["entity"]) & known:
        return

    def compute() -> BacktestResult:
        table = None if membership is None else to_polars(membership)
        return run(to_polars(prices), [to_polars(signal)], make_settings(config), membership=table)

    try:
        expected = recompute(prices, signal, **config)
    except NoSessionError:
        refuse(compute, "NoDataInRange")
        return
    except NothingDecidedError:
        refuse(compute, "NoDecisions")
        return
    except CapitalGoneError:  # a NAV below 0 ends the path before its costs are looked at
        refuse(compute, "CapitalLost", "CostsExceedCapital")
        return
    if min(expected.nav) < 0.0:
        refuse(compute, "CapitalLost", "CostsExceedCapital")
        return
    check(compute(), expected, config["capital"])


def refuse(compute: Callable[[], Any], *kinds: str) -> None:
    with pytest.raises(PluginError) as refused:
        compute()
    assert refused.value.type in kinds
