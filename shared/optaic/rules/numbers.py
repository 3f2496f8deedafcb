"""Numbers as people write them, and as a double carries them."""

from __future__ import annotations

import math
from fractions import Fraction

LARGEST_WHOLE = 2**53 - 1  # a double does not tell larger whole numbers from their neighbours


def is_multiple(value: float, factor: float) -> bool:
    """Return whether a number is a whole multiple of a positive one, both as their shortest decimal text says.

    0.01 is one hundredth, whatever binary fraction a computer keeps for it.
    """
    if not (math.isfinite(value) and math.isfinite(factor)):
        return False
    # Fractions are exact: neither the size of the numbers nor their distance matters.
    return (Fraction(repr(value)) / Fraction(repr(factor))).denominator == 1
