"""Arithmetic with decimal numbers as users write them, although a double stores them."""

from __future__ import annotations

import math
from fractions import Fraction

LARGEST_WHOLE = 2**53 - 1  # a double cannot distinguish larger whole numbers from their neighbours


def is_multiple(value: float, factor: float) -> bool:
    """Return whether a number is a whole multiple of a positive one, both taken as their shortest decimal text.

    So 0.01 is exactly one hundredth, although a double stores a binary fraction near it.
    """
    if not (math.isfinite(value) and math.isfinite(factor)):
        return False
    # Fractions are exact for numbers of any size.
    return (Fraction(repr(value)) / Fraction(repr(factor))).denominator == 1
