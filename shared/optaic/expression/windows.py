"""Compute sums and moments over the last n sessions, each from those n values alone, bit for bit.

Blocks of 1, 2, 4, ... sessions are merged pairwise, and a window of n sessions is the blocks that n is the sum of, the
largest first and newest. So the order of the operations follows from n only: what lies outside a window changes
nothing in it, not even the last bit, and a slice of a series gives what the whole series gives. A running sum has
neither property.

Sums are kept as an unevaluated pair of numbers, about 106 bits (T. J. Dekker, A floating-point technique for extending
the available precision, 1971). Moments are merged as T. F. Chan, G. H. Golub and R. J. LeVeque give it (Algorithms for
computing the sample variance, 1983), third and fourth ones as P. Pébay does (Formulas for robust, one-pass parallel
computation of covariances and arbitrary-order statistical moments, 2008); the difference of means that they need is
taken from the pairs, so that it keeps its digits however large the level is.

A block also holds how many of its sessions have a value. In windows without gaps that is one number; it gives the same
bits as the array of it that windows with gaps have.

Arrays have a row for each entity and a column for each session. A result begins with the first window that lies wholly
in the columns; see `optaic.expression.rolling` for what surrounds this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Count: TypeAlias = int | Array  # of the values in a block

_SPLITTER = 134_217_729.0  # 2^27 + 1: halves the 53 bits of a number


@dataclass(frozen=True)
class Sum:
    """Sums of `count` values: `high + low`, of which `high` is the rounded sum."""

    count: Count
    high: Array
    low: Array

    @classmethod
    def of(cls, x: Array, count: Count = 1) -> Sum:
        """Return the blocks of one session each; a session without a value has 0, and 0 as its count."""
        return cls(count, x, np.zeros_like(x))

    def cut(self, first: int, length: int) -> Sum:
        """Return blocks from a place on."""
        return Sum(
            _cut(self.count, first, length),
            self.high[:, first : first + length],
            self.low[:, first : first + length],
        )

    def merge(self, newer: Sum) -> Sum:
        """Return the blocks that are made of these and of later ones."""
        total, error = _add(self.high, newer.high)
        error += self.low + newer.low
        high = total + error
        total -= high
        total += error
        return Sum(self.count + newer.count, high, total)

    def distance(self, other: Sum) -> Array:
        """Return the difference of the means, times the product of both counts.

        Of equal counts it is the difference of the sums: their count as another factor, a power of two, changes no digit.
        """
        if _is_equal(self.count, other.count):
            difference, error = _subtract(self.high, other.high)
            error += self.low - other.low
            difference += error
            return difference
        first, first_error = _scale(self.high, other.count)
        second, second_error = _scale(other.high, self.count)
        difference, error = _add(first, -second)
        low = self.low * other.count
        low -= other.low * self.count
        if first_error is not None and second_error is not None:
            low += first_error - second_error
        elif first_error is not None:
            low += first_error
        elif second_error is not None:
            low -= second_error
        error += low
        difference += error
        return difference


@dataclass(frozen=True)
class Moments:
    """Sums, and sums of the squares of the distances from the mean."""

    sum: Sum
    squares: Array

    @classmethod
    def of(cls, x: Array, count: Count = 1) -> Moments:
        """Return the blocks of one session each."""
        return cls(Sum.of(x, count), np.zeros_like(x))

    def cut(self, first: int, length: int) -> Moments:
        """Return blocks from a place on."""
        return Moments(self.sum.cut(first, length), self.squares[:, first : first + length])

    def merge(self, newer: Moments) -> Moments:
        """Return the blocks that are made of these and of later ones."""
        between = self.sum.distance(newer.sum)
        between *= between
        between = _divide(between, _weight(self.sum.count, newer.sum.count))
        squares = self.squares + newer.squares
        squares += between
        return Moments(self.sum.merge(newer.sum), squares)


@dataclass(frozen=True)
class Comoments:
    """Moments of two series, and sums of the products of their distances from their means."""

    x: Moments
    y: Moments
    products: Array

    @classmethod
    def of(cls, x: Array, y: Array, count: Count = 1) -> Comoments:
        """Return the blocks of one session each."""
        return cls(Moments.of(x, count), Moments.of(y, count), np.zeros_like(x))

    def cut(self, first: int, length: int) -> Comoments:
        """Return blocks from a place on."""
        return Comoments(
            self.x.cut(first, length), self.y.cut(first, length), self.products[:, first : first + length]
        )

    def merge(self, newer: Comoments) -> Comoments:
        """Return the blocks that are made of these and of later ones."""
        weight = _weight(self.x.sum.count, newer.x.sum.count)
        of_x, of_y = self.x.sum.distance(newer.x.sum), self.y.sum.distance(newer.y.sum)
        products = self.products + newer.products
        products += _divide(of_x * of_y, weight)
        merged = [
            Moments(
                one.sum.merge(other.sum), one.squares + other.squares + _divide(distance * distance, weight)
            )
            for one, other, distance in ((self.x, newer.x, of_x), (self.y, newer.y, of_y))
        ]
        return Comoments(merged[0], merged[1], products)


@dataclass(frozen=True)
class HighMoments:
    """Sums, and sums of the second to third, or fourth, powers of the distances from the mean."""

    sum: Sum
    squares: Array
    cubes: Array
    fourths: Array | None

    @classmethod
    def of(cls, x: Array, count: Count = 1, *, has_fourths: bool) -> HighMoments:
        """Return the blocks of one session each."""
        zeros = np.zeros_like(x)
        return cls(Sum.of(x, count), zeros, zeros, zeros if has_fourths else None)

    def cut(self, first: int, length: int) -> HighMoments:
        """Return blocks from a place on."""
        part = slice(first, first + length)
        fourths = None if self.fourths is None else self.fourths[:, part]
        return HighMoments(self.sum.cut(first, length), self.squares[:, part], self.cubes[:, part], fourths)

    def merge(self, newer: HighMoments) -> HighMoments:
        """Return the blocks that are made of these and of later ones."""
        a, b = self.sum.count, newer.sum.count
        product, total = a * b, a + b
        distance = -self.sum.distance(newer.sum)  # the newer mean less the older one, times the product
        delta = _divide(distance, a if _is_equal(a, b) else product)
        step = _divide(delta, total)
        between = delta * step * product
        fourths = None
        if self.fourths is not None and newer.fourths is not None:
            fourths = (
                self.fourths
                + newer.fourths
                + between * step * step * (a * a - product + b * b)
                + 6.0 * step * step * (a * a * newer.squares + b * b * self.squares)
                + 4.0 * step * (a * newer.cubes - b * self.cubes)
            )
        cubes = (
            self.cubes
            + newer.cubes
            + between * step * (a - b)
            + 3.0 * step * (a * newer.squares - b * self.squares)
        )
        squares = self.squares + newer.squares + between
        return HighMoments(self.sum.merge(newer.sum), squares, cubes, fourths)


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
            self.size, self.plain[:, part], self.weighted[:, part], self.count[:, part], self.weights[:, part]
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


class _Mergeable(Protocol):
    def cut(self, first: int, length: int) -> Self: ...

    def merge(self, newer: Self) -> Self: ...


_Block = TypeVar("_Block", bound=_Mergeable)


def over_window(block: _Block, sessions: int, n: int) -> _Block:
    """Merge blocks of one session to windows of n, which must be at most the number of sessions."""
    blocks = [(1, block)]
    while 2 * blocks[-1][0] <= n:
        size, largest = blocks[-1]
        blocks.append((2 * size, _join(largest, size, largest, size, sessions)))
    covered, window = blocks.pop()
    for size, smaller in reversed(blocks):
        if covered + size <= n:
            window = _join(smaller, size, window, covered, sessions)
            covered += size
    return window


def _join(older: _Block, older_size: int, newer: _Block, newer_size: int, sessions: int) -> _Block:
    length = sessions - older_size - newer_size + 1
    return older.cut(0, length).merge(newer.cut(older_size, length))


def _cut(count: Count, first: int, length: int) -> Count:
    return count if isinstance(count, int) else count[:, first : first + length]


def _is_equal(older: Count, newer: Count) -> bool:
    return isinstance(older, int) and isinstance(newer, int) and older == newer


def _weight(older: Count, newer: Count) -> float | Array:
    """Return the divisor for the product of two distances, which contains the product of both counts twice instead of once."""
    if isinstance(older, int) and _is_equal(older, newer):
        return 2.0 * older  # see `Sum.distance`
    weight = older * newer * (older + newer)
    return float(weight) if isinstance(weight, int) else weight


def _divide(a: Array, by: float | Array) -> Array:
    """Return a product with the reciprocal; 0 where the divisor is 0, because one of the blocks has no value then."""
    if isinstance(by, int | float):
        return a * (1.0 / by)
    return a * np.divide(1.0, by, out=np.zeros_like(by), where=by > 0)


def _add(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the rounded sum and the exact rounding error (D. E. Knuth, TAOCP 2, 4.2.2, theorem B)."""
    total = a + b
    part = total - a
    error = total - part
    np.subtract(a, error, out=error)
    np.subtract(b, part, out=part)
    error += part
    return total, error


def _subtract(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the rounded difference and the exact rounding error."""
    total = a - b
    part = total - a
    error = total - part
    np.subtract(a, error, out=error)
    part += b
    error -= part
    return total, error


def _scale(a: Array, count: Count) -> tuple[Array, Array | None]:
    """Return the product with a small whole number as a rounded number and its exact rounding error, if there is one."""
    if isinstance(count, int) and count & (count - 1) == 0:  # a power of two: nothing is rounded
        return a * float(count), None
    wide = a * _SPLITTER
    high = wide - (wide - a)
    return _add(high * count, (a - high) * count)
