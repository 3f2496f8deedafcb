"""Compare the entities of one date; nothing looks at another date.

Arrays have a row for each date and a column for each entity; NaN is no value, and takes no part. Sums add one entity
after the other in their order, and a quotient by a figure of the date is a product with its reciprocal: that decides
the last bit of what stored expressions give.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from optaic.expression.rolling import DOWN, LARGE, SMALL, UP
from optaic.expression.sums import Array

_AT_ONCE = 16  # entities whose values are copied at once: they share lines of the processor's cache

_Item = TypeVar("_Item", np.float64, np.bool_)


def rank(x: Array) -> Array:
    """Return ranks from the smallest, as a share of the number of values; ties share the mean of their ranks."""
    values = x + 0.0  # 0 and -0 are equal
    order = np.argsort(values, axis=1)  # NaN comes last
    ordered = np.take_along_axis(values, order, axis=1)
    places = np.arange(1.0, values.shape[1] + 1)
    is_tied = ordered[:, 1:] == ordered[:, :-1]
    ranks = np.broadcast_to(places, ordered.shape)
    if is_tied.any():
        begins = np.ones(ordered.shape, bool)
        begins[:, 1:] = ~is_tied
        ends = np.ones(ordered.shape, bool)
        ends[:, :-1] = ~is_tied
        first = np.maximum.accumulate(np.where(begins, places, 0.0), axis=1)
        last = np.minimum.accumulate(np.where(ends, places, np.inf)[:, ::-1], axis=1)[:, ::-1]
        ranks = (first + last) / 2.0
    count = np.sum(~np.isnan(ordered), axis=1, keepdims=True)
    shares = np.where(np.isnan(ordered), np.nan, ranks * (1.0 / np.maximum(count, 1)))
    found = np.empty_like(values)
    np.put_along_axis(found, order, shares, axis=1)
    return found


def score(x: Array) -> Array:
    """Return distances from the mean in standard deviations (ddof 1); none where all values are equal."""
    x, _ = _scale(x)
    is_there = ~np.isnan(x)
    weight, mean, squares = (np.zeros(len(x)) for _ in range(3))
    # B. P. Welford, Technometrics 4, 1962
    for values, there in zip(_by_entity(x), _by_entity(is_there), strict=True):
        weight += there
        distance = np.where(there, values - mean, 0.0)
        mean += distance / np.maximum(weight, 1.0)
        squares += np.where(there, values - mean, 0.0) * distance
    deviation = np.sqrt(squares / (weight - 1.0))
    largest, smallest = np.fmax.reduce(x, axis=1, initial=-np.inf), np.fmin.reduce(x, axis=1, initial=np.inf)
    factor = np.where(largest > smallest, 1.0 / deviation, np.nan)
    return (x - _mean(x, is_there)) * factor[:, None]


def demean(x: Array) -> Array:
    """Return distances from the mean."""
    scaled, factor = _scale(x)
    found = scaled - _mean(scaled, ~np.isnan(scaled))
    return found if factor is None else found / factor


def share(x: Array) -> Array:
    """Return values over the sum of the absolute values."""
    x, _ = _scale(x)
    size = _sum(np.abs(x))
    return x / size if x.shape[1] == 1 else x * (1.0 / size)


def winsorize(x: Array, tail: float) -> Array:
    """Return values clipped to the quantiles `tail` and `1 - tail`."""
    ordered = np.sort(x, axis=1)
    count = np.sum(~np.isnan(x), axis=1, keepdims=True)
    low, high = (_quantile(ordered, count, at) for at in (tail, 1.0 - tail))
    return np.where(np.isnan(x), np.nan, np.minimum(np.maximum(x, low), high))


def _quantile(ordered: Array, count: NDArray[np.int64], at: float) -> Array:
    missing = ordered.shape[1] - count
    place = (
        np.maximum(count - 1, 0) * at + missing
    )  # the share between two values is rounded as polars rounds it
    below, above = np.floor(place), np.ceil(place)
    low, high = (
        np.take_along_axis(ordered, np.minimum(each - missing, ordered.shape[1] - 1).astype(np.int64), axis=1)
        for each in (below, above)
    )
    found: Array = np.where(low == high, low, (place - below) * (high - low) + low)
    return found


def _mean(x: Array, is_there: NDArray[np.bool_]) -> Array:
    mean: Array = _sum(x) / np.sum(is_there, axis=1, keepdims=True)
    return mean


def _sum(x: Array) -> Array:
    """Return sums with what rounding lost in them (W. Kahan, Communications of the ACM 8, 1965)."""
    total, lost = np.zeros(len(x)), np.zeros(len(x))
    has_gaps = bool(np.isnan(x).any())
    for values in _by_entity(x):
        is_absent = has_gaps and np.isnan(values)
        term = values - lost
        if has_gaps:
            term[is_absent] = 0.0
        added = total + term
        left = added - total
        left -= term
        lost = np.where(is_absent, lost, left) if has_gaps else left
        total = added
    return total[:, None]


def _by_entity(x: NDArray[_Item]) -> Iterator[NDArray[_Item]]:
    """Yield the values of each entity."""
    for first in range(0, x.shape[1], _AT_ONCE):
        yield from np.ascontiguousarray(x[:, first : first + _AT_ONCE].T)


def _scale(x: Array) -> tuple[Array, Array | None]:
    """Return values, and what those of each date were multiplied by, so that their squares are numbers; None: by 1."""
    largest = np.fmax.reduce(x, axis=1, initial=0.0, keepdims=True)
    size = np.maximum(largest, -np.fmin.reduce(x, axis=1, initial=0.0, keepdims=True))
    is_large, is_small = size > LARGE, (size < SMALL) & (size > 0)
    if not (is_large.any() or is_small.any()):
        return x, None
    factor = np.where(is_large, DOWN, np.where(is_small, UP, 1.0))
    return x * factor, factor
