"""Expressions over 4 million rows, beside the same computation in pandas on the wide panel (dates down, entities across).

The language reads a long table and gives a long table; pandas has the wide one already.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import polars as pl

from bench.report import Row
from optaic.expression import evaluate

_ROWS = 4_000_000
_ENTITIES = 2_000
_MISSING = 0.01  # of the column `sparse`
_TIMES = 2  # the faster of so many
_LIMIT = 4.0  # times as long as pandas

Wide = dict[str, pd.DataFrame]


def _zscore(x: pd.DataFrame) -> pd.DataFrame:
    return x.sub(x.mean(axis=1), axis=0).div(x.std(axis=1), axis=0)


def _slope(wide: Wide) -> pd.DataFrame:
    x, y = wide["close"], wide["volume"]
    return x.rolling(60).cov(y) / y.rolling(60).var()


def _residual(wide: Wide) -> pd.DataFrame:
    x, y = wide["close"], wide["volume"]
    return x - x.rolling(60).mean() - _slope(wide) * (y - y.rolling(60).mean())


def _winsorize(x: pd.DataFrame) -> pd.DataFrame:
    return x.clip(x.quantile(0.05, axis=1), x.quantile(0.95, axis=1), axis=0)


# Each operator that does more than copy or compute row by row, and for which pandas has a method.
_CASES: dict[str, Callable[[Wide], pd.DataFrame]] = {
    "MEAN(close, 20)": lambda wide: wide["close"].rolling(20).mean(),
    "MEAN(close, 20, 5)": lambda wide: wide["close"].rolling(20, min_periods=5).mean(),
    "MEAN(sparse, 252, 200)": lambda wide: wide["sparse"].rolling(252, min_periods=200).mean(),
    "SUM(close, 252)": lambda wide: wide["close"].rolling(252).sum(),
    "STD(close, 20)": lambda wide: wide["close"].rolling(20).std(),
    "STD(close, 252)": lambda wide: wide["close"].rolling(252).std(),
    "STD(close, 252, 200)": lambda wide: wide["close"].rolling(252, min_periods=200).std(),
    "STD(sparse, 252, 200)": lambda wide: wide["sparse"].rolling(252, min_periods=200).std(),
    "MIN(close, 252)": lambda wide: wide["close"].rolling(252).min(),
    "MAX(close, 252)": lambda wide: wide["close"].rolling(252).max(),
    "MAX(sparse, 252, 200)": lambda wide: wide["sparse"].rolling(252, min_periods=200).max(),
    "SKEW(close, 60)": lambda wide: wide["close"].rolling(60).skew(),
    "KURT(close, 60)": lambda wide: wide["close"].rolling(60).kurt(),
    "SKEW(sparse, 60, 40)": lambda wide: wide["sparse"].rolling(60, min_periods=40).skew(),
    "KURT(sparse, 60, 40)": lambda wide: wide["sparse"].rolling(60, min_periods=40).kurt(),
    "COV(close, volume, 60)": lambda wide: wide["close"].rolling(60).cov(wide["volume"]),
    "CORR(close, volume, 60)": lambda wide: wide["close"].rolling(60).corr(wide["volume"]),
    "BETA(close, volume, 60)": _slope,
    "RESID(close, volume, 60)": _residual,
    "MEDIAN(close, 60)": lambda wide: wide["close"].rolling(60).median(),
    "QUANTILE(close, 60, 0.9)": lambda wide: wide["close"].rolling(60).quantile(0.9),
    "TS_RANK(close, 60)": lambda wide: wide["close"].rolling(60).rank(pct=True),
    "COUNT(sparse, 60)": lambda wide: wide["sparse"].rolling(60, min_periods=0).count(),
    "EMA(close, 20)": lambda wide: wide["close"].ewm(span=20, adjust=False, min_periods=20).mean(),
    "RANK(PCT(close, 5))": lambda wide: wide["close"].pct_change(5).rank(axis=1, pct=True),
    "ZSCORE(REF(close, 21) / REF(close, 252) - 1)": lambda wide: _zscore(
        wide["close"].shift(21) / wide["close"].shift(252) - 1
    ),
    "DEMEAN(close)": lambda wide: wide["close"].sub(wide["close"].mean(axis=1), axis=0),
    "SCALE(close)": lambda wide: wide["close"].div(wide["close"].abs().sum(axis=1), axis=0),
    "WINSORIZE(close)": lambda wide: _winsorize(wide["close"]),
}


async def measure(rows: int = _ROWS) -> list[Row]:
    """Return seconds for each expression, beside those of pandas."""
    return await asyncio.to_thread(_measure, rows)


def _measure(rows: int) -> list[Row]:
    wide, table = _make(rows // _ENTITIES)
    found = []
    for text, peer in _CASES.items():
        pairs = [(_take(partial(evaluate, text, table)), _take(partial(peer, wide))) for _ in range(_TIMES)]
        ours, theirs = map(min, zip(*pairs, strict=True))
        name = f"{table.height / 1e6:.1f} M rows of {text}"
        found.append(Row(name, ours, "s", theirs, ours / theirs, _LIMIT))
    return found


def _take(work: Callable[[], object]) -> float:
    """Return how many seconds the work takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _make(sessions: int) -> tuple[Wide, pl.DataFrame]:
    """Return a panel as wide frames and as a long table."""
    rng = np.random.default_rng(4)
    days = [dt.date(2000, 1, 1) + dt.timedelta(days=day) for day in range(sessions)]
    names = [f"E{number:05}" for number in range(_ENTITIES)]
    close = 100 * np.exp(rng.normal(0, 0.02, (sessions, _ENTITIES)).cumsum(axis=0))
    values = {"close": close, "volume": np.exp(rng.normal(12, 1, close.shape))}
    values["sparse"] = np.where(rng.random(close.shape) < _MISSING, np.nan, close)
    wide = {
        name: pd.DataFrame(value, index=pd.DatetimeIndex(days), columns=names)
        for name, value in values.items()
    }
    keys = pl.DataFrame({"date": days}).join(pl.DataFrame({"entity": names}), how="cross")
    return wide, keys.with_columns(**{name: pl.Series(value.ravel()) for name, value in values.items()})
