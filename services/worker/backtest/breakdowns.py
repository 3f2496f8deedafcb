"""Break a path down into its worst drawdowns and its months."""

from __future__ import annotations

import numpy as np
import polars as pl

from worker.backtest.execution import Path
from worker.backtest.panel import Panel
from worker.backtest.result import benchmark_level
from worker.backtest.tables import Matrix

_MOST = 10


def list_drawdowns(panel: Panel, path: Path) -> pl.DataFrame:
    """Return the ten worst drawdowns, the worst first: each from a peak to the session that reaches it again, if one does."""
    nav = path.nav
    peaks = np.maximum.accumulate(nav)
    below = np.concatenate([[False], nav < peaks, [False]]).astype(np.int8)
    begins, ends = np.flatnonzero(np.diff(below) == 1), np.flatnonzero(np.diff(below) == -1)
    found = []
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        trough = begin + int(nav[begin:end].argmin())
        is_over = end < nav.size
        found.append(
            {
                "start": panel.dates[begin - 1],
                "trough": panel.dates[trough],
                "end": panel.dates[end] if is_over else None,
                "depth": float(nav[trough] / peaks[trough] - 1.0),
                "sessions": (end if is_over else nav.size - 1) - (begin - 1),
            }
        )
    schema = {"start": pl.Date, "trough": pl.Date, "end": pl.Date, "depth": pl.Float64, "sessions": pl.Int64}
    return pl.DataFrame(found, schema=schema).sort("depth", maintain_order=True).head(_MOST)


def list_months(panel: Panel, path: Path) -> pl.DataFrame:
    """Return the return of each month, from the last session of the month before, and that of the benchmark."""
    level = benchmark_level(panel, path)
    months = [(date.year, date.month) for date in panel.dates]
    last = [index for index, month in enumerate(months) if months[index + 1 : index + 2] != [month]]
    before = [0, *last[:-1]]
    return pl.DataFrame(
        {
            "year": pl.Series([months[index][0] for index in last], dtype=pl.Int64),
            "month": pl.Series([months[index][1] for index in last], dtype=pl.Int64),
            "return": _growth(path.nav, before, last),
            "benchmark_return": _growth(level, before, last),
        }
    )


def _growth(level: Matrix, before: list[int], last: list[int]) -> Matrix:
    base = level[before]
    growth: Matrix = np.divide(level[last], base, out=np.ones(len(last)), where=base != 0.0) - 1.0
    return growth
