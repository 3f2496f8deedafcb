"""Describe a sample by its moments, as SciPy has them by default; a figure that is not defined is None."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]
_SPREAD = 2  # how many values a deviation needs


@dataclass(frozen=True)
class Moments:
    """The figures of a sample."""

    mean: float | None
    std: float | None  # ddof 1
    min: float | None
    max: float | None
    skewness: float | None  # biased
    kurtosis: float | None  # biased, in excess of a normal distribution's


def describe(values: Numbers) -> Moments:
    """Return the figures of a sample without missing values.

    Skewness and kurtosis need two different values, the deviation needs two values, and all need one.
    """
    from scipy import stats  # noqa: PLC0415 - the process that only supervises children never needs it

    with np.errstate(all="ignore"):  # sums of the largest numbers are not defined
        return Moments(
            mean=_known(values.mean()) if values.size else None,
            std=_known(values.std(ddof=1)) if values.size >= _SPREAD else None,
            min=_known(values.min()) if values.size else None,
            max=_known(values.max()) if values.size else None,
            skewness=_standardize(stats.skew, values),
            kurtosis=_standardize(stats.kurtosis, values),
        )


def _standardize(compute: Callable[[Numbers], float], values: Numbers) -> float | None:
    if values.size < _SPREAD or values.min() == values.max():
        return None
    with warnings.catch_warnings():  # of values that are too near to each other: the result is NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        return _known(compute(values))


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
