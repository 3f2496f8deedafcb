"""The positions of a backtest, against a plain recomputation from its other tables."""

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest

from support.small_panels import WEEKDAYS, settings, table
from worker.backtest import BacktestResult, run

N = None
COSTS = {"transaction_costs": 0.002, "slippage_model": "linear"}


def panel(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return closes and values with gaps, a late listing and two early ends."""
    chance = np.random.default_rng(seed)
    closes = 50.0 * np.exp(np.cumsum(chance.normal(0.0, 0.03, (7, 80)), axis=1))
    prices: dict[str, list[float | None]] = {
        f"m{number}": [None if chance.random() < 0.06 else float(value) for value in line]
        for number, line in enumerate(closes)
    }
    prices["m0"][:15], prices["m1"][30:], prices["m2"][55:] = [N] * 15, [N] * 50, [N] * 25
    return table("close", prices), table("value", {name: chance.normal(size=80).tolist() for name in prices})


def recompute(result: BacktestResult, prices: pl.DataFrame) -> list[dict[str, Any]]:
    """Follow each member from session to session."""
    days = result.equity_curve["date"].to_list()
    navs = dict(result.equity_curve.select("date", "nav").iter_rows())
    held = {(day, name): weight * navs[day] for day, name, weight in result.weights_history.iter_rows()}
    known = {(day, name): close for day, name, close in prices.drop_nulls().iter_rows()}
    sold = {
        (row["date"], row["entity"]): row["price"]
        for row in result.trades.iter_rows(named=True)
        if row["reason"] == "delisting"
    }
    paid: dict[tuple[dt.date, str], float] = {}
    for row in result.trades.iter_rows(named=True):
        key = row["date"], row["entity"]
        paid[key] = paid.get(key, 0.0) + row["cost"]
    found = []
    for name in sorted({entity for _, entity in known}):
        price, value, now = float("nan"), 0.0, None
        for day in days:
            before, price = price, known.get((day, name), price)
            price_here = sold.get((day, name), price)
            after = held.get((day, name), 0.0)
            if now is not None:
                now["gain"] += value * (price_here / before - 1.0)
            if now is not None and np.sign(after) != np.sign(value):
                now["exit_date"], now["exit_price"] = day, price_here
                found.append(now)
                if after == 0.0:  # else the trade belongs to the position that begins
                    now["costs"] += paid.get((day, name), 0.0)
                now = None
            if now is None and after != 0.0:
                side = "long" if after > 0.0 else "short"
                now = {
                    "entity": name, "side": side, "entry_date": day, "exit_date": None, "sessions": 0,
                    "entry_price": price, "exit_price": price, "gain": 0.0, "costs": 0.0,
                }  # fmt: skip
            if now is not None:
                now["sessions"] += 1
                now["costs"] += paid.get((day, name), 0.0)
                now["exit_price"] = price
            value = after
        if now is not None:
            found.append(now)
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("long_short", [False, True])
@pytest.mark.parametrize("frequency", ["daily", "weekly"])
def test_positions_are_those_of_a_recomputation(seed: int, long_short: bool, frequency: str) -> None:
    prices, signal = panel(seed)
    config: dict[str, Any] = {"top_n": 2, "delisting_return": -0.3, "long_short": long_short, **COSTS}
    result = run(prices, [signal], settings(rebalance_frequency=frequency, start="2020-01-01", **config))
    positions = result.others["positions"]
    expected = recompute(result, prices)
    assert positions.height == len(expected) > 10
    for row, wanted in zip(positions.iter_rows(named=True), expected, strict=True):
        for name in ("entity", "side", "entry_date", "exit_date", "sessions"):
            assert row[name] == wanted[name], (row, wanted)
        for name in ("entry_price", "exit_price"):
            assert row[name] == pytest.approx(wanted[name])
        for name in ("gain", "costs"):
            assert row[name] == pytest.approx(wanted[name], abs=1e-6 * 1_000_000)
        sign = 1.0 if row["side"] == "long" else -1.0
        assert row["return"] == pytest.approx(sign * (wanted["exit_price"] / wanted["entry_price"] - 1.0))
    metrics = result.metrics
    assert positions["sessions"].sum() / positions.height == pytest.approx(metrics["average_holding_period"])
    assert positions["costs"].sum() == pytest.approx(metrics["total_costs"])
    earned = float((positions["gain"] - positions["costs"]).sum())
    assert earned == pytest.approx(metrics["final_nav"] - metrics["initial_capital"], abs=1e-6)


def test_a_path_that_holds_nothing_has_no_positions() -> None:
    prices = table("close", {"a": [10.0]})
    result = run(prices, [table("value", {"a": [1.0]})], settings())
    assert result.others["positions"].height == 0
    assert result.others["positions"].columns[0] == "entity"


def test_a_position_that_turns_is_two() -> None:
    prices = table("close", {"a": [10.0, 10.0, 12.0, 11.0], "b": [10.0, 10.0, 10.0, 12.0]})
    signal = table("value", {"a": [1.0, 2.0, 0.0], "b": [0.0, 0.0, 1.0]})
    result = run(prices, [signal], settings(long_short=True))
    rows = result.others["positions"].select("entity", "side", "entry_date", "exit_date", "return").rows()
    expected = [
        ("a", "long", WEEKDAYS[1], WEEKDAYS[3], 0.1),
        ("a", "short", WEEKDAYS[3], None, 0.0),
        ("b", "short", WEEKDAYS[1], WEEKDAYS[3], -0.2),
        ("b", "long", WEEKDAYS[3], None, 0.0),
    ]
    assert [row[:4] for row in rows] == [row[:4] for row in expected]
    assert [row[4] for row in rows] == pytest.approx([row[4] for row in expected])
