"""Compute what operators say of the last n sessions of each entity; `optaic.expression.windows` merges the sums.

Arrays have a row for each session and a column for each entity; NaN is no value. A window whose values are fewer than
`fewest` has no result. Entities are computed a few at a time, so that their numbers stay in the processor's cache;
several threads take turns (`optaic.expression.threads`).

Squares of numbers beyond about 1e154 or below 1e-154 are none that a number holds, nor are sums of the largest. A window
of such values is computed after a multiplication by a power of two, which loses nothing that counts; which one follows
from the window's largest value, and so from the window alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from optaic.expression.sums import Array, Count, Sum
from optaic.expression.threads import compute_parts
from optaic.expression.windows import Comoments, Counts, HighMoments, Moments, Weighted, over_window

# Between them, squares of distances keep all their digits: a distance is 0, or at least 2^-53 of the largest value.
SMALL, LARGE = 2.0**-400, 2.0**400
UP, DOWN = 2.0**600, 2.0**-700
_SLIGHTLY_DOWN = 2.0**-64  # of sums: the fewest digits get lost
_STEP = 200  # of the exponents by which windows are scaled whose fourth powers are needed
_AT_ONCE = 16_000  # numbers of a series that are computed at once, about
_LINE = 8  # numbers that the processor's memory moves at once

Mask: TypeAlias = NDArray[np.bool_]
Entities: TypeAlias = slice | NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """The windows of some entities, whose missing values are 0 and are not counted."""

    n: int
    series: tuple[Array, ...]
    count: Count  # of each session; 1 where no value may be missing: what has a missing one is NaN then
    counted: Count  # of each window

    def merge_sums(self, x: Array) -> Sum:
        """Return the sums of all windows."""
        return over_window(Sum.of(x, 1, self.n), len(x), self.n)  # whose counts nobody asks for

    def newest(self, x: Array) -> Array:
        """Return the last value of each window."""
        return x[self.n - 1 :]

    def largest(self, x: Array) -> Array:
        """Return the largest value of each window."""
        return _slide(np.maximum, self._fill(x, -np.inf), self.n)

    def smallest(self, x: Array) -> Array:
        """Return the smallest value of each window."""
        return _slide(np.minimum, self._fill(x, np.inf), self.n)

    def _fill(self, x: Array, value: float) -> Array:
        return x if isinstance(self.count, int) else np.where(self.count > 0, x, value)

    def scale_squares(self, x: Array) -> Array | None:
        """Return for each window what to multiply it by, so that the squares of its values are numbers; None: by 1."""
        size = np.abs(x)
        if _lies_within(size, SMALL, LARGE):
            return None
        size = _slide(np.maximum, size, self.n)
        return np.where(size > LARGE, DOWN, np.where((size < SMALL) & (size > 0), UP, size * 0.0 + 1.0))

    def scale_sums(self, x: Array, terms: float) -> Array | None:
        """Return the same, so that the sum of so many values is a number."""
        size, most = np.abs(x), 2.0**1022 / terms
        if _lies_within(size, 0.0, most):
            return None
        size = _slide(np.maximum, size, self.n)
        return np.where(size > most, _SLIGHTLY_DOWN, size * 0.0 + 1.0)

    def scale_fourths(self, x: Array) -> Array | None:
        """Return the same, so that the fourth powers of its values are numbers."""
        size = np.abs(x)
        if _lies_within(size, 2.0**-_STEP, 2.0**_STEP):
            return None
        size = _slide(np.maximum, size, self.n)
        _, exponent = np.frexp(np.nan_to_num(size))
        steps = np.clip(np.rint(exponent / _STEP), -5, 5)
        return np.where(np.isnan(size), np.nan, np.ldexp(1.0, (-_STEP * steps).astype(int)))


Compute: TypeAlias = Callable[[Windows], Array]


def roll(
    series: Sequence[Array],
    n: int,
    fewest: int,
    compute: Compute,
    *,
    has_now: bool = False,
    compares: bool = False,
) -> Array:
    """Return the result of each window.

    Args:
        series: of equal shape; a session counts if all of them have a value.
        n: how many sessions a window has.
        fewest: how many of them need a value.
        compute: returns the results of windows.
        has_now: whether the last session of a window needs a value in any case.
        compares: whether it compares values, so that NaN among them would not make the result NaN.
    """
    sessions, entities = series[0].shape
    found = np.full((sessions, entities), np.nan)
    if fewest >= n and not compares:
        is_complete, short = np.ones(entities, bool), 0
    else:
        is_complete = np.logical_and.reduce([np.isfinite(each).all(axis=0) for each in series])
        short = min(n - 1, sessions)  # windows that end there have fewer than n sessions

    def compute_whole(chosen: Entities) -> None:
        given = tuple(np.ascontiguousarray(each[:, chosen]) for each in series)
        found[n - 1 :, chosen] = compute(Windows(n, given, 1, n))

    def compute_until(until: int, chosen: Entities) -> None:
        given = tuple(each[:until, chosen] for each in series)
        found[fewest - 1 : until, chosen] = _compute_with_gaps(given, n, fewest, compute, has_now=has_now)

    parts: list[Callable[[], None]] = []
    if n <= sessions:
        parts += [partial(compute_whole, chosen) for chosen in _divide(is_complete, sessions)]
    for is_chosen, until in ((is_complete, short), (~is_complete, sessions)):
        if until >= fewest:
            parts += [partial(compute_until, until, chosen) for chosen in _divide(is_chosen, until)]
    compute_parts(lambda part: part(), parts, found.size)
    return found


def _compute_with_gaps(
    series: Sequence[Array], n: int, fewest: int, compute: Compute, *, has_now: bool
) -> Array:
    """Return the result of each window with enough sessions; they may have no value, and none come before the first."""
    is_there = np.logical_and.reduce([np.isfinite(each) for each in series])
    filled = tuple(_precede(np.where(is_there, each, 0.0), n - fewest) for each in series)
    counted = count_windows(is_there, n)[fewest - 1 :]
    results = compute(Windows(n, filled, _precede(is_there, n - fewest), counted))
    results[counted < fewest] = np.nan
    if has_now:
        results[~is_there[fewest - 1 :]] = np.nan
    return results


def _precede(values: Array | Mask, sessions: int) -> Array:
    """Return values after so many sessions with 0."""
    found = np.zeros((sessions + len(values), values.shape[1]))
    found[sessions:] = values
    return found


def _divide(is_chosen: Mask, sessions: int) -> Iterator[Entities]:
    """Yield the chosen entities, so many at once as their numbers stay in the cache."""
    chosen, size = np.flatnonzero(is_chosen), _LINE * max(1, round(_AT_ONCE / _LINE / sessions))
    for first in range(0, len(chosen), size):
        some = chosen[first : first + size]
        is_run = some[-1] - some[0] == len(some) - 1  # a slice is copied faster
        yield slice(int(some[0]), int(some[-1]) + 1) if is_run else some


def count_windows(is_there: Mask, n: int) -> Array:
    """Return how many of the last n sessions have a value."""
    n = min(n, len(is_there))
    if not n:
        return np.zeros(is_there.shape)
    counts = np.zeros((n - 1 + len(is_there), is_there.shape[1]), np.int16)
    counts[n - 1 :] = is_there
    return over_window(Counts(counts), len(counts), n).values.astype(np.float64)


def find_sum(windows: Windows) -> Array:
    """Return sums, rounded once."""
    (x,) = windows.series
    return _over_scales(
        x, windows.scale_sums(x, windows.n), lambda scaled, scale: windows.merge_sums(scaled).rounded / scale
    )


def find_mean(windows: Windows) -> Array:
    """Return arithmetic means."""
    (x,) = windows.series

    def average(scaled: Array, scale: float) -> Array:
        return windows.merge_sums(scaled).rounded * (1.0 / windows.counted) / scale

    return _over_scales(x, windows.scale_sums(x, windows.n), average)


def find_deviation(windows: Windows) -> Array:
    """Return sample standard deviations (ddof 1); exactly 0 where all values are equal."""
    (x,) = windows.series

    def deviate(scaled: Array, scale: float) -> Array:
        squares = over_window(Moments.of(scaled, windows.count, windows.n), len(x), windows.n).squares
        squares *= 1.0 / (windows.counted - 1)
        deviation = np.sqrt(squares, out=squares)
        if scale != 1.0:
            is_spread = deviation > 0
            deviation /= scale
            deviation[is_spread & (deviation == 0)] = np.nan  # too small for a number
        return deviation

    return _over_scales(x, windows.scale_squares(x), deviate)


def find_largest(windows: Windows) -> Array:
    """Return the largest values. Adding 0 gives both zeros one sign, else their order would decide it."""
    return windows.largest(windows.series[0] + 0.0)


def find_smallest(windows: Windows) -> Array:
    """Return the smallest values."""
    return windows.smallest(windows.series[0] + 0.0)


def _over_pairs(windows: Windows, compute: Callable[[Comoments, Comoments, float, float], Array]) -> Array:
    """Return a figure of two series, which both are scaled, from the blocks of one session and from those of n."""
    x, y = windows.series
    if isinstance(windows.count, int):
        is_pair = ~(np.isnan(x) | np.isnan(y))
        if not is_pair.all():
            x, y = np.where(is_pair, x, np.nan), np.where(is_pair, y, np.nan)
    y_scales = windows.scale_squares(y)

    def over_x(of_x: Array, x_scale: float) -> Array:
        def over_y(of_y: Array, y_scale: float) -> Array:
            blocks = Comoments.of(of_x, of_y, windows.count, windows.n)
            return compute(blocks, over_window(blocks, len(x), windows.n), x_scale, y_scale)

        return _over_scales(y, y_scales, over_y)

    return _over_scales(x, windows.scale_squares(x), over_x)


def find_correlation(windows: Windows) -> Array:
    """Return Pearson correlations, within -1 and 1; none where x or y is constant."""

    def correlate(_: Comoments, pairs: Comoments, *__: object) -> Array:
        size: Array = np.sqrt(pairs.x.squares) * np.sqrt(pairs.y.squares)
        return pairs.products / size

    return np.clip(_over_pairs(windows, correlate), -1.0, 1.0)


def find_covariance(windows: Windows) -> Array:
    """Return sample covariances (ddof 1); exactly 0 where x or y is constant."""

    def vary(_: Comoments, pairs: Comoments, x_scale: float, y_scale: float) -> Array:
        return pairs.products / (windows.counted - 1) / x_scale / y_scale

    return _over_pairs(windows, vary)


def find_slope(windows: Windows) -> Array:
    """Return the slopes of the regressions of x on y; none where y is constant, exactly 0 where only x is."""

    def slope(_: Comoments, pairs: Comoments, x_scale: float, y_scale: float) -> Array:
        return pairs.products / pairs.y.squares / x_scale * y_scale

    return _over_pairs(windows, slope)


def find_residual(windows: Windows) -> Array:
    """Return how far the last x lies above the line of the regression of x on y; none where y is constant."""

    def lie(blocks: Comoments, pairs: Comoments, x_scale: float, _: float) -> Array:
        newest = blocks.cut(windows.n - 1, len(pairs.products))
        above, across = (
            of_newest.sum.distance(of_all.sum) / windows.counted
            for of_newest, of_all in ((newest.x, pairs.x), (newest.y, pairs.y))
        )
        return (above - pairs.products / pairs.y.squares * across) / x_scale

    return _over_pairs(windows, lie)


def find_skewness(windows: Windows) -> Array:
    """Return sample skewness (adjusted Fisher-Pearson); none where all values are equal."""

    def skew(moments: HighMoments, m: Array) -> Array:
        biased = moments.cubes / m / (moments.squares / m) ** 1.5
        return np.where(m > 2, np.sqrt(m * (m - 1)) / (m - 2) * biased, np.nan)  # noqa: PLR2004 - by definition

    return _over_high_moments(windows, skew, has_fourths=False)


def find_kurtosis(windows: Windows) -> Array:
    """Return sample excess kurtosis (0 of a normal distribution); none where all values are equal."""

    def peak(moments: HighMoments, m: Array) -> Array:
        assert moments.fourths is not None
        ratio = m * (m + 1) * moments.fourths / moments.squares**2
        return np.where(m > 3, (m - 1) / ((m - 2) * (m - 3)) * (ratio - 3 * (m - 1)), np.nan)  # noqa: PLR2004 - by definition

    return _over_high_moments(windows, peak, has_fourths=True)


def _over_high_moments(
    windows: Windows, compute: Callable[[HighMoments, Array], Array], *, has_fourths: bool
) -> Array:
    (x,) = windows.series
    m = np.asarray(windows.counted, np.float64)

    def measure(scaled: Array, _: float) -> Array:
        blocks = HighMoments.of(scaled, windows.count, windows.n, has_fourths=has_fourths)
        return compute(over_window(blocks, len(x), windows.n), m)

    return _over_scales(x, windows.scale_fourths(x), measure)


def find_decayed(windows: Windows) -> Array:
    """Return means with the weights 1 for the oldest session to n for the newest."""
    (x,) = windows.series

    def average(scaled: Array, scale: float) -> Array:
        sums = over_window(Weighted.of(scaled, windows.count), len(x), windows.n)
        return sums.weighted / sums.weights / scale

    return _over_scales(x, windows.scale_sums(x, float(windows.n) * (windows.n + 1)), average)


def _over_scales(x: Array, scales: Array | None, compute: Callable[[Array, float], Array]) -> Array:
    """Compute a figure of the series in the scale of each window; NaN where a window has none."""
    if scales is None:
        return compute(x, 1.0)
    found = np.full(scales.shape, np.nan)
    for scale in np.unique(scales[~np.isnan(scales)]):
        found = np.where(scales == scale, compute(x if scale == 1.0 else x * scale, float(scale)), found)
    return found


def _lies_within(size: Array, least: float, most: float) -> bool:
    """Return whether all sizes that are not 0 lie between the bounds."""
    largest = np.fmax.reduce(size, axis=None, initial=0.0)
    if least == 0.0 or not largest <= most:
        return bool(largest <= most)
    if np.fmin.reduce(size, axis=None, initial=np.inf) >= least:
        return True
    return bool(np.fmin.reduce(size, axis=None, initial=np.inf, where=size > 0) >= least)


def _slide(choose: np.ufunc, x: Array, n: int) -> Array:
    """Return the smallest or largest of n sessions: of two blocks that may overlap."""
    size, found = 1, x
    while size < n:
        step = min(size, n - size)
        found = choose(found[:-step], found[step:])
        size += step
    return found
