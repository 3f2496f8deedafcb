"""The sums of blocks of sessions, with so many digits that the difference of two keeps its own however large the level is.

A sum is an unevaluated pair of numbers. `SplitSum` adds without any rounding what has few enough digits for that:
both numbers of a value are whole multiples of a unit, and no sum in a window needs more than 53 bits of either. Prices,
volumes and returns are such values. `PairSum` adds all others with about 106 bits. Both round the same exact sums in the
same places, so the choice between them changes no bit: it may depend on values outside a window.

A block also holds how many of its sessions have a value. In windows without gaps that is one number; it gives the same
bits as the array of it that windows with gaps have. The older of two blocks that merge has a power of two of sessions, and
the count of the newer one is a multiple of it, where both are numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Count: TypeAlias = int | Array  # of the values in a block

_SPLITTER = 134_217_729.0  # 2^27 + 1: halves the 53 bits of a number
_BITS = 53
_LARGEST = 2.0**960  # of larger values, what `_round` adds may not be a number


class Sum(ABC):
    """The sums of the values in blocks."""

    count: Count

    @staticmethod
    def of(x: Array, count: Count, n: int) -> Sum:
        """Return the blocks of one session each, for windows of n; a session without a value has 0, and 0 as its count."""
        return SplitSum.begin(x, count, n) or PairSum(count, x, np.zeros_like(x))

    @property
    @abstractmethod
    def rounded(self) -> Array:
        """The sums, each as one number."""

    @abstractmethod
    def cut(self, first: int, length: int) -> Self:
        """Return blocks from a place on."""

    def merge(self, newer: Self) -> Self:
        """Return the blocks that are made of these and of later ones."""
        return self.merge_counted(newer, self.count + newer.count)

    @abstractmethod
    def merge_counted(self, newer: Self, count: Count) -> Self:
        """Return the same, given how many values they have."""

    @abstractmethod
    def distance(self, newer: Self) -> Array:
        """Return by how much the means exceed those of later blocks, times the newer count; with gaps also times the older."""


@dataclass(frozen=True)
class SplitSum(Sum):
    """Exact sums: `upper + lower`."""

    count: Count
    upper: Array
    lower: Array

    @classmethod
    def begin(cls, x: Array, count: Count, n: int) -> Self | None:
        """Return the blocks of one session each; None if sums over n sessions, times counts, may need too many bits."""
        if n == 1:
            return None  # nothing is added
        size = np.abs(x)
        largest = np.fmax.reduce(size, axis=None, initial=0.0)
        if largest > _LARGEST:
            return None
        # One unit for all series is quicker, and mostly enough.
        return cls._split(x, count, n, largest) or cls._split(
            x, count, n, np.fmax.reduce(size, axis=0, initial=0.0, keepdims=True)
        )

    @classmethod
    def _split(cls, x: Array, count: Count, n: int, largest: Array | np.float64) -> Self | None:
        """Return the blocks with the units that belong to the largest values; None if they do not hold all digits."""
        spare = 2 * (n - 1).bit_length()  # n^2 is at most 2^spare
        unit = np.frexp(largest)[1] + spare - _BITS
        upper = _round(x, unit)
        lower = x - upper
        lost = _round(lower, unit + spare - _BITS - 1)
        np.subtract(lower, lost, out=lost)
        is_whole = np.fmax.reduce(np.abs(lost, out=lost), axis=None, initial=0.0) == 0.0
        return cls(count, upper, lower) if is_whole else None

    @property
    def rounded(self) -> Array:
        """The sums, rounded once."""
        return self.upper + self.lower

    def cut(self, first: int, length: int) -> Self:
        """Return blocks from a place on."""
        part = slice(first, first + length)
        return type(self)(cut_count(self.count, part), self.upper[part], self.lower[part])

    def merge_counted(self, newer: Self, count: Count) -> Self:
        """Return the blocks that are made of these and of later ones, given how many values they have."""
        return type(self)(count, self.upper + newer.upper, self.lower + newer.lower)

    def distance(self, newer: Self) -> Array:
        """Return by how much the means exceed those of later blocks, times the newer count; with gaps also times the older."""
        found = cross(self.upper, newer.upper, self.count, newer.count)
        found += cross(self.lower, newer.lower, self.count, newer.count)
        return found


@dataclass(frozen=True)
class PairSum(Sum):
    """The sums `high + low`, of which `high` is the rounded sum.

    T. J. Dekker, A floating-point technique for extending the available precision, 1971.
    """

    count: Count
    high: Array
    low: Array

    @property
    def rounded(self) -> Array:
        """The sums, each as one number."""
        return self.high

    def cut(self, first: int, length: int) -> Self:
        """Return blocks from a place on."""
        part = slice(first, first + length)
        return type(self)(cut_count(self.count, part), self.high[part], self.low[part])

    def merge_counted(self, newer: Self, count: Count) -> Self:
        """Return the blocks that are made of these and of later ones, given how many values they have."""
        total, error = _add(self.high, newer.high)
        error += self.low + newer.low
        high = total + error
        total -= high
        total += error
        return type(self)(count, high, total)

    def distance(self, newer: Self) -> Array:
        """Return by how much the means exceed those of later blocks, times the newer count; with gaps also times the older."""
        by, newer_by = find_factors(self.count, newer.count)
        first, first_error = _scale(self.high, by)
        second, second_error = _scale(newer.high, newer_by)
        difference, error = _subtract(first, second)
        low = cross(self.low, newer.low, self.count, newer.count)
        low += first_error - second_error
        error += low
        difference += error
        return difference


def cross(older: Array, newer: Array, older_count: Count, newer_count: Count) -> Array:
    """Return the older values times the newer count, less the newer ones times the older; without gaps over the older count."""
    by, newer_by = find_factors(older_count, newer_count)
    if isinstance(by, int) and by == 1:
        return older - newer
    found = older * by
    found -= newer if isinstance(newer_by, int) else newer * newer_by
    return found


def cut_count(count: Count, part: slice) -> Count:
    """Return the counts of some blocks."""
    return count if isinstance(count, int) else count[part]


def find_factors(older: Count, newer: Count) -> tuple[Count, Count]:
    """Return by what to multiply the older and the newer of two values, the one by the count of the other."""
    return (newer // older, 1) if isinstance(older, int) and isinstance(newer, int) else (newer, older)


def _round(x: Array, exponent: NDArray[np.int32] | np.int32) -> Array:
    """Return whole multiples of a power of two; x has at most 2^51 of them."""
    shift = np.ldexp(1.5, exponent + _BITS - 1)
    found = x + shift
    found -= shift
    return found


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


def _scale(a: Array, count: Count) -> tuple[Array, Array | float]:
    """Return the product with a small whole number as a rounded number and its exact rounding error."""
    if isinstance(count, int) and count & (count - 1) == 0:  # a power of two: nothing is rounded
        return a * float(count), 0.0
    wide = a * _SPLITTER
    high = wide - (wide - a)
    return _add(high * count, (a - high) * count)
