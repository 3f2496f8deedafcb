"""Numbers as people write them: 0.01 is one hundredth, whatever binary fraction a computer keeps for it."""

from __future__ import annotations

import math
from fractions import Fraction


def is_multiple(value: float, factor: float) -> bool:
    """Return whether a number is a whole multiple of a positive one, both as their shortest decimal text says."""
    if not (math.isfinite(value) and math.isfinite(factor)):
        return False
    # Fractions are exact: neither the size of the numbers nor their distance matters.
    return (Fraction(repr(value)) / Fraction(repr(factor))).denominator == 1
