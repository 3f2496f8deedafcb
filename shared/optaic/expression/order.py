"""Find what the order of the values in a window tells: ranks, places and quantiles; nothing is summed."""

from __future__ import annotations

import numpy as np
import polars as pl

from optaic.expression.rolling import Windows
from optaic.expression.sums import Array
from optaic.expression.threads import compute_parts


def find_rank(windows: Windows) -> Array:
    """Return the rank of the last value among all of a window, as a share; ties share the mean of their ranks."""
    (x,) = windows.series
    now, filled = windows.newest(x), np.where(np.asarray(windows.count) > 0, x, np.nan)
    below, equal = np.zeros_like(now), np.zeros_like(now)
    for back in range(windows.n):
        then = filled[back : back + len(now)]
        below += then < now
        equal += then == now
    return (below + (equal + 1.0) / 2.0) / windows.counted


def find_place_of_largest(windows: Windows) -> Array:
    """Return the place of the largest value: 1 is the oldest session, n the newest; the oldest of equal ones."""
    (x,) = windows.series
    value = np.where(np.asarray(windows.count) > 0, x, -np.inf)
    place = np.broadcast_to(np.arange(len(x), dtype=np.float64)[:, None], x.shape)
    size = 1
    while size < windows.n:
        step = min(size, windows.n - size)  # the last blocks may overlap: the largest of both is the same
        is_older = value[:-step] >= value[step:]
        value = np.where(is_older, value[:-step], value[step:])
        place = np.where(is_older, place[:-step], place[step:])
        size += step
    return place - np.arange(len(place))[:, None] + 1.0


def find_place_of_smallest(windows: Windows) -> Array:
    """Return the place of the smallest value."""
    (x,) = windows.series
    return find_place_of_largest(Windows(windows.n, (-x,), windows.count, windows.counted))


def find_quantile(x: Array, n: int, share: float, fewest: int) -> Array:
    """Return quantiles of the values in each window, between two of them by linear interpolation."""
    found = np.full(x.shape, np.nan)

    def compute(entity: int) -> None:
        series = pl.Series(x[:, entity] + 0.0, nan_to_null=True)
        found[:, entity] = series.rolling_quantile(share, "linear", n, min_samples=fewest).to_numpy()

    compute_parts(compute, range(x.shape[1]), x.size)
    return found
