"""Merge blocks of sessions to windows of n, each from its n values alone, bit for bit.

Blocks of 1, 2, 4, ... sessions are merged pairwise, and a window of n sessions is the blocks that n is the sum of, the
largest first and newest. So the order of the operations follows from n only: what lies outside a window changes
nothing in it, not even the last bit, and a slice of a series gives what the whole series gives. A running sum has
neither property.

Moments are merged as T. F. Chan, G. H. Golub and R. J. LeVeque give it (Algorithms for computing the sample variance,
1983), third and fourth ones as P. Pébay does (Formulas for robust, one-pass parallel computation of covariances and
arbitrary-order statistical moments, 2008); `optaic.expression.sums` gives the differences of means that they need. These
are exactly 0 between blocks that are equal throughout, so the squares of a window are 0 if and only if all its values are
equal: the values are neither so small nor so large that a square is lost (`optaic.expression.rolling` scales them).

Arrays have a row for each session and a column for each entity, so a cut is one piece of memory. A result begins with the
first window that lies wholly in the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from optaic.expression.sums import Array, Count, Sum, cross, find_factors

_NOTHING = 1e-300  # added to a count it changes 0 only, which cannot divide


@dataclass(frozen=True)
class Moments:
    """Sums, and sums of the squares of the distances from the mean."""

    sum: Sum
    squares: Array

    @classmethod
    def of(cls, x: Array, count: Count, n: int) -> Moments:
        """Return the blocks of one session each, for windows of n."""
        return cls(Sum.of(x, count, n), np.zeros_like(x))

    def cut(self, first: int, length: int) -> Moments:
        """Return blocks from a place on."""
        return Moments(self.sum.cut(first, length), self.squares[first : first + length])

    def merge(self, newer: Moments) -> Moments:
        """Return the blocks that are made of these and of later ones."""
        distance, count = self.sum.distance(newer.sum), self.sum.count + newer.sum.count
        return self.merge_apart(newer, distance, _weigh(self.sum.count, newer.sum.count, count), count)

    def merge_apart(self, newer: Moments, distance: Array, weight: float | Array, count: Count) -> Moments:
        """Return the same, given the distance of the sums, which is overwritten, the weight of its square, and the count."""
        distance *= distance
        distance *= weight
        squares = self.squares + newer.squares
        squares += distance
        return Moments(self.sum.merge_counted(newer.sum, count), squares)


@dataclass(frozen=True)
class Comoments:
    """Moments of two series, and sums of the products of their distances from their means."""

    x: Moments
    y: Moments
    products: Array

    @classmethod
    def of(cls, x: Array, y: Array, count: Count, n: int) -> Comoments:
        """Return the blocks of one session each, for windows of n."""
        return cls(Moments.of(x, count, n), Moments.of(y, count, n), np.zeros_like(x))

    def cut(self, first: int, length: int) -> Comoments:
        """Return blocks from a place on."""
        return Comoments(
            self.x.cut(first, length), self.y.cut(first, length), self.products[first : first + length]
        )

    def merge(self, newer: Comoments) -> Comoments:
        """Return the blocks that are made of these and of later ones."""
        count = self.x.sum.count + newer.x.sum.count
        weight = _weigh(self.x.sum.count, newer.x.sum.count, count)
        of_x, of_y = self.x.sum.distance(newer.x.sum), self.y.sum.distance(newer.y.sum)
        between = of_x * of_y
        between *= weight
        products = self.products + newer.products
        products += between
        return Comoments(
            self.x.merge_apart(newer.x, of_x, weight, count),
            self.y.merge_apart(newer.y, of_y, weight, count),
            products,
        )


@dataclass(frozen=True)
class HighMoments:
    """Sums, and sums of the second to third, or fourth, powers of the distances from the mean."""

    sum: Sum
    squares: Array
    cubes: Array
    fourths: Array | None
    is_single: bool = False  # of one session each

    @classmethod
    def of(cls, x: Array, count: Count, n: int, *, has_fourths: bool) -> HighMoments:
        """Return the blocks of one session each, for windows of n."""
        zeros = np.zeros_like(x)
        return cls(Sum.of(x, count, n), zeros, zeros, zeros if has_fourths else None, is_single=True)

    def cut(self, first: int, length: int) -> HighMoments:
        """Return blocks from a place on."""
        part = slice(first, first + length)
        fourths = None if self.fourths is None else self.fourths[part]
        return HighMoments(
            self.sum.cut(first, length), self.squares[part], self.cubes[part], fourths, self.is_single
        )

    def merge(self, newer: HighMoments) -> HighMoments:
        """Return the blocks that are made of these and of later ones."""
        if self.is_single and newer.is_single:
            return self._pair(newer)
        a, b = self.sum.count, newer.sum.count
        unit = a if isinstance(a, int) else 1  # `cross` and `Sum.distance` leave it out
        is_even = isinstance(a, int) and a == b
        product, total = a * b, a + b
        between = self.sum.distance(newer.sum)
        between *= _invert(product, unit)  # the older mean less the newer one
        step = between * _invert(total)
        between *= step
        between *= product
        triple = step * (3.0 * unit)
        cubed = between * step
        squares = self.squares + newer.squares
        fourths = None
        if self.fourths is not None and newer.fourths is not None:
            fourths = self.fourths + newer.fourths
            term = cubed * step
            a_squared, b_squared = a * a, b * b
            term *= a_squared - product + b_squared
            fourths += term
            step *= 2.0 * unit
            np.multiply(triple, step, out=term)
            term *= squares if is_even else self._add_squares(newer, a_squared, b_squared)
            fourths += term
            leaning = cross(self.cubes, newer.cubes, a, b)
            leaning *= step
            leaning *= 2.0
            fourths += leaning
        cubes = self.cubes + newer.cubes
        if not is_even:
            cubed *= b - a
            cubes += cubed
        leaning = cross(self.squares, newer.squares, a, b)
        leaning *= triple
        cubes += leaning
        squares += between
        return HighMoments(self.sum.merge_counted(newer.sum, total), squares, cubes, fourths)

    def _pair(self, newer: HighMoments) -> HighMoments:
        """Return the same of sessions: where one of two has no value their distance is 0, else each lies half of it from the mean."""
        squares = self.sum.distance(newer.sum)
        half = squares * 0.5
        squares *= half
        fourths = None
        if self.fourths is not None:
            fourths = squares * half
            fourths *= half
        return HighMoments(self.sum.merge(newer.sum), squares, self.cubes, fourths)

    def _add_squares(self, newer: HighMoments, a_squared: Count, b_squared: Count) -> Array:
        """Return squares, each times the square of the other count; without gaps over the square of the older count."""
        by, newer_by = find_factors(a_squared, b_squared)
        found = self.squares * by
        found += newer.squares if isinstance(newer_by, int) else newer.squares * newer_by
        return found


@dataclass(frozen=True)
class Weighted:
    """Sums of values and of counts, plain and weighted with 1, 2, 3, ... from the oldest session to the newest."""

    size: int
    plain: Array
    weighted: Array
    count: Array
    weights: Array

    @classmethod
    def of(cls, x: Array, count: Count = 1) -> Weighted:
        """Return the blocks of one session each."""
        counts = np.broadcast_to(np.asarray(count, np.float64), x.shape)
        return cls(1, x, x, counts, counts)

    def cut(self, first: int, length: int) -> Weighted:
        """Return blocks from a place on."""
        part = slice(first, first + length)
        return Weighted(
            self.size, self.plain[part], self.weighted[part], self.count[part], self.weights[part]
        )

    def merge(self, newer: Weighted) -> Weighted:
        """Return the blocks that are made of these and of later ones."""
        return Weighted(
            self.size + newer.size,
            self.plain + newer.plain,
            self.weighted + (newer.weighted + self.size * newer.plain),
            self.count + newer.count,
            self.weights + (newer.weights + self.size * newer.count),
        )


@dataclass(frozen=True)
class Counts:
    """Whole numbers, at most 10,000 in a window: their small type is added several at once."""

    values: NDArray[np.int16]

    def cut(self, first: int, length: int) -> Counts:
        """Return blocks from a place on."""
        return Counts(self.values[first : first + length])

    def merge(self, newer: Counts) -> Counts:
        """Return the blocks that are made of these and of later ones."""
        return Counts(self.values + newer.values)


class _Mergeable(Protocol):
    def cut(self, first: int, length: int) -> Self: ...

    def merge(self, newer: Self) -> Self: ...


_Block = TypeVar("_Block", bound=_Mergeable)


def over_window(block: _Block, sessions: int, n: int) -> _Block:
    """Merge blocks of one session to windows of n, which must be at most the number of sessions."""
    size, largest = 1, block
    needed: list[
        tuple[int, _Block]
    ] = []  # of smaller sizes; others are freed, so that their memory is used again
    while 2 * size <= n:
        if n & size:
            needed.append((size, largest))
        largest = _join(largest, size, largest, size, sessions)
        size *= 2
    covered, window = size, largest
    while needed:
        size, smaller = needed.pop()
        window = _join(smaller, size, window, covered, sessions)
        covered += size
    return window


def _join(older: _Block, older_size: int, newer: _Block, newer_size: int, sessions: int) -> _Block:
    length = sessions - older_size - newer_size + 1
    return older.cut(0, length).merge(newer.cut(older_size, length))


def _weigh(older: Count, newer: Count, both: Count) -> float | Array:
    """Return what makes the product of two of `Sum.distance` that of two distances of means, times both counts, over their sum."""
    product = older * newer
    product *= both
    return _invert(product, older * older if isinstance(older, int) else 1)


def _invert(count: Count, unit: int = 1) -> float | Array:
    """Return unit / count. Its factor is 0 where a count is, because one of the blocks has no value then."""
    if isinstance(count, int):
        return unit / count
    found = count + _NOTHING
    return np.divide(unit, found, out=found)
