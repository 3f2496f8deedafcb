"""Expressions over 4 million rows, beside the same computation in pandas on the wide panel (dates down, entities across).

The language reads a long table and gives a long table; pandas has the wide one already.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl

from bench.report import Row
from optaic.expression import evaluate

_ROWS = 4_000_000
_ENTITIES = 2_000
_TIMES = 2  # the faster of so many

Wide = dict[str, pd.DataFrame]


def _zscore(x: pd.DataFrame) -> pd.DataFrame:
    return x.sub(x.mean(axis=1), axis=0).div(x.std(axis=1), axis=0)


_CASES: dict[str, Callable[[Wide], pd.DataFrame]] = {
    "MEAN(close, 20)": lambda wide: wide["close"].rolling(20).mean(),
    "MEAN(close, 20, 5)": lambda wide: wide["close"].rolling(20, min_periods=5).mean(),
    "STD(close, 252)": lambda wide: wide["close"].rolling(252).std(),
    "MAX(close, 252)": lambda wide: wide["close"].rolling(252).max(),
    "MEDIAN(close, 60)": lambda wide: wide["close"].rolling(60).median(),
    "SKEW(close, 60)": lambda wide: wide["close"].rolling(60).skew(),
    "CORR(close, volume, 60)": lambda wide: wide["close"].rolling(60).corr(wide["volume"]),
    "RANK(PCT(close, 5))": lambda wide: wide["close"].pct_change(5).rank(axis=1, pct=True),
    "ZSCORE(REF(close, 21) / REF(close, 252) - 1)": lambda wide: _zscore(
        wide["close"].shift(21) / wide["close"].shift(252) - 1
    ),
}


async def measure(rows: int = _ROWS) -> list[Row]:
    """Return seconds for each expression, beside those of pandas."""
    return await asyncio.to_thread(_measure, rows)


def _measure(rows: int) -> list[Row]:
    wide, table = _make(rows // _ENTITIES)
    found = []
    for text, peer in _CASES.items():
        ours = _take(lambda text=text: evaluate(text, table))  # type: ignore[misc] # a default pins the loop's value
        theirs = _take(lambda peer=peer: peer(wide))  # type: ignore[misc] # see above
        found.append(Row(f"{table.height / 1e6:.1f} M rows of {text}", ours, "s", theirs, ours / theirs))
    return found


def _take(work: Callable[[], object]) -> float:
    """Return how many seconds the work takes."""
    times = []
    for _ in range(_TIMES):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def _make(sessions: int) -> tuple[Wide, pl.DataFrame]:
    """Return a panel as wide frames and as a long table."""
    rng = np.random.default_rng(4)
    days = [dt.date(2000, 1, 1) + dt.timedelta(days=day) for day in range(sessions)]
    names = [f"E{number:05}" for number in range(_ENTITIES)]
    close = 100 * np.exp(rng.normal(0, 0.02, (sessions, _ENTITIES)).cumsum(axis=0))
    values = {"close": close, "volume": np.exp(rng.normal(12, 1, close.shape))}
    wide = {
        name: pd.DataFrame(value, index=pd.DatetimeIndex(days), columns=names)
        for name, value in values.items()
    }
    keys = pl.DataFrame({"date": days}).join(pl.DataFrame({"entity": names}), how="cross")
    return wide, keys.with_columns(**{name: pl.Series(value.ravel()) for name, value in values.items()})
