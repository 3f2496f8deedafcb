"""A daily backtest, prepared and simulated, beside the same job in pandas, at two sizes."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl

from bench.report import Row
from worker.backtest import BacktestSettings, run
from worker.backtest.execution import simulate
from worker.backtest.market import prepare

_SIZES = ((8_000, 500), (2_500, 2_000))  # sessions, entities
_TOP = 50
_SAMPLES = 3
_COMMISSION = 0.001
_SPEC = {
    "date_range": {"start": "1990-01-01"},
    "config": {
        "procedure": 2,
        "rebalance_frequency": "daily",
        "top_n": _TOP,
        "transaction_costs": _COMMISSION,
    },
}


async def measure() -> list[Row]:
    """The best of a few runs: preparation and simulation, all with tables and figures, and pandas."""
    return [row for sessions, entities in _SIZES for row in _compare(sessions, entities)]


def _compare(sessions: int, entities: int) -> list[Row]:
    prices, signal = _panel(sessions, entities)
    closes, values = (_to_pandas(table) for table in (prices, signal))
    settings = BacktestSettings.from_spec(_SPEC)
    nav = run(prices, [signal], settings).equity_curve["nav"].to_numpy()
    np.testing.assert_allclose(nav, _pandas_backtest(closes, values), rtol=1e-6)

    def prepare_and_simulate() -> None:
        ready = prepare(prices, [signal], None, settings)
        simulate(ready.panel, ready.choices, settings)

    peer = _best(lambda: _pandas_backtest(closes, values))
    title = f"backtest, daily, {sessions:,} sessions x {entities:,} entities"
    rows = []
    for what, call in (
        ("prepared and simulated", prepare_and_simulate),
        ("with tables and figures", lambda: run(prices, [signal], settings)),
    ):
        seconds = _best(call)
        rows.append(Row(f"{title}: {what} (peer: pandas)", seconds, "s", peer, seconds / peer))
    return rows


def _best(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_SAMPLES):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _panel(sessions: int, entities: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    numbers = np.random.default_rng(0)
    days: list[dt.date] = []
    day = dt.date(1990, 1, 1)
    while len(days) < sessions:
        if day.weekday() < 5:
            days.append(day)
        day += dt.timedelta(days=1)
    shape = (sessions, entities)
    keys = {
        "date": pl.Series(days, dtype=pl.Date).gather(np.repeat(np.arange(sessions), entities)),
        "entity": pl.Series([f"ENTITY{number:05d}" for number in range(entities)]).gather(
            np.tile(np.arange(entities), sessions)
        ),
    }
    closes = 50 * np.exp(numbers.normal(0, 0.01, shape).cumsum(axis=0))
    return (
        pl.DataFrame({**keys, "close": closes.ravel()}),
        pl.DataFrame({**keys, "value": numbers.normal(0, 1, shape).ravel()}),
    )


def _to_pandas(table: pl.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: table[name].to_numpy() for name in table.columns})


def _pandas_backtest(
    prices: pd.DataFrame, signal: pd.DataFrame
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Compute the path as one does in pandas: wide frames, ranks of each session, weights one session later, and drift."""
    closes = prices.pivot_table(index="date", columns="entity", values="close", aggfunc="first")
    values = signal.pivot_table(index="date", columns="entity", values="value", aggfunc="first")
    chosen = values.rank(axis=1, ascending=False, method="first") <= _TOP
    weights = chosen.div(chosen.sum(axis=1), axis=0).shift(1).fillna(0.0)
    returns = closes.pct_change().fillna(0.0)
    drifted = weights.shift(1).fillna(0.0) * (1.0 + returns)
    growth = drifted.sum(axis=1)
    growth.iloc[:2] = 1.0
    before = drifted.div(growth, axis=0)
    traded = (weights - before).abs().sum(axis=1)
    path: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        1_000_000.0 * (growth * (1.0 - _COMMISSION * traded)).cumprod()
    ).to_numpy()
    return path
