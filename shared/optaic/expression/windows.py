"""Compute sums and moments over the last n values of a series, each from those n values alone, bit for bit.

Blocks of 1, 2, 4, ... values are merged pairwise, and a window of n values is the blocks that n is the sum of, the
largest first and newest. So the order of the operations follows from n only: what lies outside a window changes
nothing in it, not even the last bit, and a slice of a series gives what the whole series gives. A running sum, as
`rolling_mean` keeps it, has neither property.

Sums are kept as an unevaluated pair of numbers, about 106 bits (T. J. Dekker, A floating-point technique for extending
the available precision, 1971). Moments are merged as T. F. Chan, G. H. Golub and R. J. LeVeque give it (Algorithms for
computing the sample variance, 1983); the difference of means that they need is taken from the pairs, so that it keeps
its digits however large the level is.

Squares of numbers beyond about 1e154 or below 1e-154 are none that a number holds, nor are sums of the largest. A window of
such values is computed after a multiplication by a power of two, which loses nothing that counts; which one follows
from the window's largest value, and so from the window alone.

Every function takes series of equal length and returns one of that length: null where one of the n values is, and
where a number does not hold the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

_SPLITTER = 134_217_729.0  # 2^27 + 1: halves the 53 bits of a number
# Between them, squares of distances keep all their digits: a distance is 0, or at least 2^-53 of the largest value.
SMALL, LARGE = 2.0**-400, 2.0**400
UP, DOWN = 2.0**600, 2.0**-700
_ABSENT = pl.Series([None], dtype=pl.Float64)
_SLIGHTLY_DOWN = 2.0**-64  # of sums: the fewest digits get lost


def rolling_sum(x: pl.Series, n: int) -> pl.Series:
    """Return sums of n values, rounded once."""
    return _over_scales(
        x, _scale_sums(x, n), lambda scaled, scale: _over_window(_Sum.of(scaled), n).high / scale
    )


def rolling_mean(x: pl.Series, n: int) -> pl.Series:
    """Return arithmetic means of n values."""
    return _over_scales(
        x, _scale_sums(x, n), lambda scaled, scale: _over_window(_Sum.of(scaled), n).high / n / scale
    )


def rolling_deviation(x: pl.Series, n: int) -> pl.Series:
    """Return sample standard deviations (ddof 1) of n values; exactly 0 where all of them are equal."""

    def deviate(scaled: pl.Series, scale: float) -> pl.Series:
        return (_over_window(_Moments.of(scaled), n).squares / (n - 1)).sqrt() / scale

    deviation = _over_scales(x, _scale_squares(x, n), deviate)
    is_flat = _is_flat(x, n)
    is_held = is_flat | (deviation > 0).fill_null(value=False)
    return deviation.zip_with(~is_flat, pl.Series([0.0])).zip_with(is_held, _ABSENT).alias(x.name)


def rolling_correlation(x: pl.Series, y: pl.Series, n: int) -> pl.Series:
    """Return Pearson correlations of n pairs, within -1 and 1; null where x or y is constant, and where a value is absent."""
    is_pair = x.is_not_null() & y.is_not_null()
    x, y = x.zip_with(is_pair, _ABSENT), y.zip_with(is_pair, _ABSENT)
    y_scales = _scale_squares(y, n)

    def correlate(scaled: pl.Series, other: pl.Series) -> pl.Series:
        pairs = _over_window(_Comoments.of(scaled, other), n)
        return pairs.products / (pairs.x.squares.sqrt() * pairs.y.squares.sqrt())

    def correlate_all(scaled: pl.Series, _: float) -> pl.Series:
        return _over_scales(y, y_scales, lambda other, _: correlate(scaled, other))

    correlation = _over_scales(x, _scale_squares(x, n), correlate_all)
    is_defined = ~(_is_flat(x, n) | _is_flat(y, n))
    return correlation.clip(-1.0, 1.0).zip_with(is_defined, _ABSENT).alias(x.name)


def _over_scales(
    x: pl.Series, scales: pl.Series, compute: Callable[[pl.Series, float], pl.Series]
) -> pl.Series:
    """Compute a figure of the series in the scale of each window; null where a window has no value."""
    found = _ABSENT.new_from_index(0, x.len())
    for scale in scales.drop_nulls().unique().sort():
        found = compute(x if scale == 1.0 else x * scale, scale).zip_with(
            (scales == scale).fill_null(value=False), found
        )
    return found.alias(x.name)


def _scale_squares(x: pl.Series, n: int) -> pl.Series:
    """Return for each window what to multiply it by, so that the squares of its values are numbers."""
    size = _size(x, n)
    scales = size * 0.0 + 1.0
    return scales.set((size > LARGE).fill_null(value=False), DOWN).set(
        ((size < SMALL) & (size > 0)).fill_null(value=False), UP
    )


def _scale_sums(x: pl.Series, n: int) -> pl.Series:
    """Return for each window what to multiply it by, so that the sum of its values is a number."""
    size = _size(x, n)
    return (size * 0.0 + 1.0).set((size > 2.0**1022 / n).fill_null(value=False), _SLIGHTLY_DOWN)


def _size(x: pl.Series, n: int) -> pl.Series:
    """Return the largest absolute value of each window."""
    return x.abs().rolling_max(n, min_samples=n)


def _is_flat(x: pl.Series, n: int) -> pl.Series:
    return (x.rolling_max(n, min_samples=n) == x.rolling_min(n, min_samples=n)).fill_null(value=False)


@dataclass(frozen=True)
class _Sum:
    """Sums of `count` values: `high + low`, of which `high` is the rounded sum."""

    count: int
    high: pl.Series
    low: pl.Series

    @classmethod
    def of(cls, x: pl.Series) -> _Sum:
        return cls(1, x, x - x)

    def shift(self, places: int) -> _Sum:
        return _Sum(self.count, self.high.shift(places), self.low.shift(places))

    def merge(self, other: _Sum) -> _Sum:
        total, error = _add(self.high, other.high)
        error = error + (self.low + other.low)
        high = total + error
        return _Sum(self.count + other.count, high, error - (high - total))

    def distance(self, other: _Sum) -> pl.Series:
        """Return the difference of the means, times the product of both counts."""
        first, first_error = _scale(self.high, other.count)
        second, second_error = _scale(other.high, self.count)
        difference, error = _add(first, -second)
        low = self.low * other.count - other.low * self.count
        return difference + (error + ((first_error - second_error) + low))


@dataclass(frozen=True)
class _Moments:
    """Sums, and sums of the squares of the distances from the mean."""

    sum: _Sum
    squares: pl.Series

    @classmethod
    def of(cls, x: pl.Series) -> _Moments:
        return cls(_Sum.of(x), x - x)

    def shift(self, places: int) -> _Moments:
        return _Moments(self.sum.shift(places), self.squares.shift(places))

    def merge(self, other: _Moments) -> _Moments:
        distance = self.sum.distance(other.sum)
        between = distance * distance / _weight(self.sum, other.sum)
        return _Moments(self.sum.merge(other.sum), self.squares + other.squares + between)


@dataclass(frozen=True)
class _Comoments:
    """Moments of two series, and sums of the products of their distances from their means."""

    x: _Moments
    y: _Moments
    products: pl.Series

    @classmethod
    def of(cls, x: pl.Series, y: pl.Series) -> _Comoments:
        return cls(_Moments.of(x), _Moments.of(y), x - x)

    def shift(self, places: int) -> _Comoments:
        return _Comoments(self.x.shift(places), self.y.shift(places), self.products.shift(places))

    def merge(self, other: _Comoments) -> _Comoments:
        distances = self.x.sum.distance(other.x.sum) * self.y.sum.distance(other.y.sum)
        between = distances / _weight(self.x.sum, other.x.sum)
        products = self.products + other.products + between
        return _Comoments(self.x.merge(other.x), self.y.merge(other.y), products)


_Block = TypeVar("_Block", _Sum, _Moments, _Comoments)


def _over_window(block: _Block, n: int) -> _Block:
    """Merge blocks of one value to windows of n."""
    blocks = [(1, block)]
    while 2 * blocks[-1][0] <= n:
        size, largest = blocks[-1]
        blocks.append((2 * size, largest.shift(size).merge(largest)))
    covered, window = blocks.pop()
    for size, smaller in reversed(blocks):
        if covered + size <= n:
            window = smaller.shift(covered).merge(window)
            covered += size
    return window


def _weight(left: _Sum, right: _Sum) -> float:
    """Return the divisor for the product of two distances, which contains the product of both counts twice instead of once."""
    return float(left.count * right.count * (left.count + right.count))


def _add(a: pl.Series, b: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return the rounded sum and the exact rounding error (D. E. Knuth, TAOCP 2, 4.2.2, theorem B)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _scale(a: pl.Series, count: int) -> tuple[pl.Series, pl.Series]:
    """Return the product with a small whole number as a rounded number and its exact rounding error."""
    if count & (count - 1) == 0:  # a power of two: nothing is rounded
        scaled = a * float(count)
        return scaled, scaled - scaled
    wide = a * _SPLITTER
    high = wide - (wide - a)
    return _add(high * float(count), (a - high) * float(count))
