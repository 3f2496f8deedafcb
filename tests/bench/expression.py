"""Each operator over 4 million rows, beside the same computation in pandas on the wide panel (dates down, entities across).

The language reads a long table and gives a long one; pandas has the wide one already. So each row shows the evaluation alone,
and the first row what reading and writing the table add to it. Both take turns. A row has the median of seconds that pass, and one
more that of the processors' seconds: the language uses several of them, pandas one.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
from pandas.core.groupby import DataFrameGroupBy

from bench.report import Row
from optaic.expression import compiler, evaluate
from optaic.expression.sums import Array

_ROWS = 4_000_000
_ENTITIES = 2_000
_SECTORS = 11
_MISSING = 0.01  # of the column `sparse`
_TIMES = 7  # in turns; the median counts
_SLOW = 3.0  # seconds, which are not measured again
_LIMIT = 4.0  # times as long as pandas

Wide = dict[str, pd.DataFrame]


class Seconds(NamedTuple):
    """How long something takes."""

    passed: float
    of_processors: float


def _find_median(measured: Sequence[Seconds]) -> Seconds:
    return Seconds(*map(float, np.median(measured, axis=0)))


def _zscore(x: pd.DataFrame) -> pd.DataFrame:
    return x.sub(x.mean(axis=1), axis=0).div(x.std(axis=1), axis=0)


def _slope(wide: Wide, name: str, fewest: int) -> pd.DataFrame:
    x, y = wide[name].rolling(60, min_periods=fewest), wide["volume"].where(wide[name].notna())
    return x.cov(y) / y.rolling(60, min_periods=fewest).var()


def _residual(wide: Wide, name: str, fewest: int) -> pd.DataFrame:
    x, y = wide[name], wide["volume"].where(wide[name].notna())
    x_mean, y_mean = (each.rolling(60, min_periods=fewest).mean() for each in (x, y))
    return x - x_mean - _slope(wide, name, fewest) * (y - y_mean)


def _winsorize(x: pd.DataFrame) -> pd.DataFrame:
    return x.clip(x.quantile(0.05, axis=1), x.quantile(0.95, axis=1), axis=0)


def _decay(x: pd.DataFrame, n: int) -> pd.DataFrame:
    return sum(((n - back) * x.shift(back) for back in range(1, n)), n * x) / (n * (n + 1) / 2)


def _hump(x: pd.DataFrame, hump: float) -> pd.DataFrame:
    values = x.to_numpy()
    found = values.copy()
    for session in range(1, len(values)):
        away = values[session] - found[session - 1]
        found[session] = found[session - 1] + np.where(np.abs(away) > hump, np.copysign(hump, away), 0.0)
    return pd.DataFrame(found, index=x.index, columns=x.columns)


def _by_sector(wide: Wide) -> DataFrameGroupBy[str, bool]:
    """Group the entities; pandas groups what lies down."""
    return wide["close"].T.groupby(wide["sector"].iloc[0].to_numpy())


def _winsorize_in_sectors(wide: Wide) -> pd.DataFrame:
    groups = _by_sector(wide)
    return wide["close"].clip(groups.transform("quantile", 0.05).T, groups.transform("quantile", 0.95).T)


_CASES: dict[str, Callable[[Wide], pd.DataFrame]] = {
    "close + volume": lambda wide: wide["close"] + wide["volume"],
    "close - volume": lambda wide: wide["close"] - wide["volume"],
    "close * volume": lambda wide: wide["close"] * wide["volume"],
    "close / volume": lambda wide: wide["close"] / wide["volume"],
    "sparse / volume": lambda wide: wide["sparse"] / wide["volume"],
    "-close": lambda wide: -wide["close"],
    "close ^ 2": lambda wide: wide["close"] ** 2,
    "close ^ change": lambda wide: wide["close"] ** wide["change"],
    "close > volume": lambda wide: (wide["close"] > wide["volume"]).astype(float),
    "sparse > volume": lambda wide: (
        (wide["sparse"] > wide["volume"]).astype(float).where(wide["sparse"].notna())
    ),
    "close == volume": lambda wide: (wide["close"] == wide["volume"]).astype(float),
    "sector == 'S03'": lambda wide: (wide["sector"] == "S03").astype(float),
    "LOG(close)": lambda wide: np.log(wide["close"]),
    "LOG(sparse)": lambda wide: np.log(wide["sparse"]),
    "ABS(change)": lambda wide: wide["change"].abs(),
    "ABS(sparse)": lambda wide: wide["sparse"].abs(),
    "SIGN(change)": lambda wide: np.sign(wide["change"]),
    "EXP(change)": lambda wide: np.exp(wide["change"]),
    "SQRT(close)": lambda wide: np.sqrt(wide["close"]),
    "POW(close, change)": lambda wide: wide["close"].pow(wide["change"]),
    "CLIP(close, 90, 110)": lambda wide: wide["close"].clip(90, 110),
    "GREATEST(close, volume)": lambda wide: np.maximum(wide["close"], wide["volume"]),
    "LEAST(close, volume)": lambda wide: np.minimum(wide["close"], wide["volume"]),
    "IF(change > 0, close, volume)": lambda wide: wide["close"].where(wide["change"] > 0, wide["volume"]),
    "FILL(sparse, 0)": lambda wide: wide["sparse"].fillna(0),
    "FILL(sparse, volume)": lambda wide: wide["sparse"].fillna(wide["volume"]),
    "REF(close, 5)": lambda wide: wide["close"].shift(5),
    "DELTA(close, 5)": lambda wide: wide["close"].diff(5),
    "PCT(close, 5)": lambda wide: wide["close"].pct_change(5, fill_method=None),
    "PCT(sparse, 5)": lambda wide: wide["sparse"].pct_change(5, fill_method=None),
    "FFILL(sparse, 5)": lambda wide: wide["sparse"].ffill(limit=5),
    "HUMP(close, 0.5)": lambda wide: _hump(wide["close"], 0.5),
    "EMA(close, 20)": lambda wide: wide["close"].ewm(span=20, adjust=False, min_periods=20).mean(),
    "EMA(sparse, 20, 5)": lambda wide: (
        wide["sparse"]
        .ewm(span=20, adjust=False, min_periods=5, ignore_na=True)
        .mean()
        .where(wide["sparse"].notna())
    ),
    "COUNT(sparse, 60)": lambda wide: wide["sparse"].rolling(60, min_periods=0).count(),
    "SUM(close, 252)": lambda wide: wide["close"].rolling(252).sum(),
    "SUM(sparse, 252, 200)": lambda wide: wide["sparse"].rolling(252, min_periods=200).sum(),
    "MEAN(close, 20)": lambda wide: wide["close"].rolling(20).mean(),
    "MEAN(close, 20, 5)": lambda wide: wide["close"].rolling(20, min_periods=5).mean(),
    "MEAN(sparse, 252, 200)": lambda wide: wide["sparse"].rolling(252, min_periods=200).mean(),
    "STD(close, 20)": lambda wide: wide["close"].rolling(20).std(),
    "STD(close, 252)": lambda wide: wide["close"].rolling(252).std(),
    "STD(close, 252, 200)": lambda wide: wide["close"].rolling(252, min_periods=200).std(),
    "STD(sparse, 252, 200)": lambda wide: wide["sparse"].rolling(252, min_periods=200).std(),
    "MIN(close, 252)": lambda wide: wide["close"].rolling(252).min(),
    "MIN(sparse, 252, 200)": lambda wide: wide["sparse"].rolling(252, min_periods=200).min(),
    "MAX(close, 252)": lambda wide: wide["close"].rolling(252).max(),
    "MAX(sparse, 252, 200)": lambda wide: wide["sparse"].rolling(252, min_periods=200).max(),
    "SKEW(close, 60)": lambda wide: wide["close"].rolling(60).skew(),
    "SKEW(sparse, 60, 40)": lambda wide: wide["sparse"].rolling(60, min_periods=40).skew(),
    "KURT(close, 60)": lambda wide: wide["close"].rolling(60).kurt(),
    "KURT(sparse, 60, 40)": lambda wide: wide["sparse"].rolling(60, min_periods=40).kurt(),
    "COV(close, volume, 60)": lambda wide: wide["close"].rolling(60).cov(wide["volume"]),
    "COV(sparse, volume, 60, 40)": lambda wide: (
        wide["sparse"].rolling(60, min_periods=40).cov(wide["volume"])
    ),
    "CORR(close, volume, 60)": lambda wide: wide["close"].rolling(60).corr(wide["volume"]),
    "CORR(sparse, volume, 60, 40)": lambda wide: (
        wide["sparse"].rolling(60, min_periods=40).corr(wide["volume"])
    ),
    "BETA(close, volume, 60)": lambda wide: _slope(wide, "close", 60),
    "BETA(sparse, volume, 60, 40)": lambda wide: _slope(wide, "sparse", 40),
    "RESID(close, volume, 60)": lambda wide: _residual(wide, "close", 60),
    "RESID(sparse, volume, 60, 40)": lambda wide: _residual(wide, "sparse", 40),
    "MEDIAN(close, 60)": lambda wide: wide["close"].rolling(60).median(),
    "MEDIAN(sparse, 60, 40)": lambda wide: wide["sparse"].rolling(60, min_periods=40).median(),
    "QUANTILE(close, 60, 0.9)": lambda wide: wide["close"].rolling(60).quantile(0.9),
    "TS_RANK(close, 60)": lambda wide: wide["close"].rolling(60).rank(pct=True),
    "TS_RANK(sparse, 60, 40)": lambda wide: wide["sparse"].rolling(60, min_periods=40).rank(pct=True),
    "ARGMAX(close, 20)": lambda wide: wide["close"].rolling(20).apply(np.argmax, raw=True) + 1,
    "ARGMIN(close, 20)": lambda wide: wide["close"].rolling(20).apply(np.argmin, raw=True) + 1,
    "DECAY_LINEAR(close, 20)": lambda wide: _decay(wide["close"], 20),
    "RANK(change)": lambda wide: wide["change"].rank(axis=1, pct=True),
    "RANK(sparse)": lambda wide: wide["sparse"].rank(axis=1, pct=True),
    "RANK(close, sector)": lambda wide: _by_sector(wide).rank(pct=True).T,
    "ZSCORE(change)": lambda wide: _zscore(wide["change"]),
    "ZSCORE(sparse)": lambda wide: _zscore(wide["sparse"]),
    "ZSCORE(close, sector)": lambda wide: (
        ((wide["close"].T - _by_sector(wide).transform("mean")) / _by_sector(wide).transform("std")).T
    ),
    "DEMEAN(close)": lambda wide: wide["close"].sub(wide["close"].mean(axis=1), axis=0),
    "DEMEAN(sparse)": lambda wide: wide["sparse"].sub(wide["sparse"].mean(axis=1), axis=0),
    "DEMEAN(close, sector)": lambda wide: (wide["close"].T - _by_sector(wide).transform("mean")).T,
    "SCALE(close)": lambda wide: wide["close"].div(wide["close"].abs().sum(axis=1), axis=0),
    "SCALE(sparse)": lambda wide: wide["sparse"].div(wide["sparse"].abs().sum(axis=1), axis=0),
    "SCALE(close, sector)": lambda wide: (
        (
            wide["close"].T
            / wide["close"].T.abs().groupby(wide["sector"].iloc[0].to_numpy()).transform("sum")
        ).T
    ),
    "WINSORIZE(close)": lambda wide: _winsorize(wide["close"]),
    "WINSORIZE(sparse)": lambda wide: _winsorize(wide["sparse"]),
    "WINSORIZE(close, sector)": _winsorize_in_sectors,
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
    size = f"{table.height / 1e6:.1f} M rows"
    outside, found = [], []
    for text, peer in _CASES.items():
        ours, theirs = [], []
        for _ in range(_TIMES):
            whole, alone = _evaluate(text, table)
            outside.append(whole.passed - alone.passed)
            ours.append(alone)
            theirs.append(_take(partial(peer, wide)))
            if theirs[-1].passed > _SLOW:
                break
        our, their = _find_median(ours), _find_median(theirs)
        for what, mine, other, limit in zip(("", ", processors"), our, their, (_LIMIT, None), strict=True):
            found.append(Row(f"{size} of {text}{what}", mine, "s", other, mine / other, limit))
    return [Row(f"{size} read and written", float(np.median(outside)), "s"), *found]


def _evaluate(text: str, table: pl.DataFrame) -> tuple[Seconds, Seconds]:
    """Return how long a call takes, and how long of that its evaluation over the panel."""
    alone: list[Seconds] = []
    run = compiler._Evaluation.run

    def timed(evaluation: compiler._Evaluation) -> Array:
        results: list[Array] = []
        alone.append(_take(lambda: results.append(run(evaluation))))
        return results[0]

    with mock.patch.object(compiler._Evaluation, "run", timed):
        whole = _take(partial(evaluate, text, table))
    return whole, alone[0]


def _take(work: Callable[[], object]) -> Seconds:
    """Return how long the work takes."""
    begun, begun_processing = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - begun, time.process_time() - begun_processing)


def _make(sessions: int) -> tuple[Wide, pl.DataFrame]:
    """Return a panel as wide frames and as a long table."""
    rng = np.random.default_rng(4)
    days = [dt.date(2000, 1, 1) + dt.timedelta(days=day) for day in range(sessions)]
    names = [f"E{number:05}" for number in range(_ENTITIES)]
    close = 100 * np.exp(rng.normal(0, 0.02, (sessions, _ENTITIES)).cumsum(axis=0))
    values = {"close": close, "volume": np.exp(rng.normal(12, 1, close.shape))}
    values["sparse"] = np.where(rng.random(close.shape) < _MISSING, np.nan, close)
    values["change"] = rng.normal(0, 0.02, close.shape)
    values["sector"] = np.broadcast_to(
        [f"S{number % _SECTORS:02}" for number in range(_ENTITIES)], close.shape
    )
    wide = {
        name: pd.DataFrame(value, index=pd.DatetimeIndex(days), columns=names)
        for name, value in values.items()
    }
    keys = pl.DataFrame({"date": days}).join(pl.DataFrame({"entity": names}), how="cross")
    return wide, keys.with_columns(**{name: pl.Series(value.ravel()) for name, value in values.items()})
