"""The figures of a sample, each beside a formula written once more."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from worker.statistics.moments import Moments, describe

FINITE = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@settings(deadline=None, max_examples=60)
@given(st.lists(FINITE, min_size=2, max_size=30).filter(lambda values: max(values) - min(values) > 0.01))
def test_the_figures_are_those_of_plain_sums(values: list[float]) -> None:
    size, mean = len(values), math.fsum(values) / len(values)
    second, third, fourth = (
        math.fsum((value - mean) ** order for value in values) / size for order in (2, 3, 4)
    )
    found = describe(np.array(values))
    assert found.mean == pytest.approx(mean, rel=1e-9, abs=1e-6)
    assert found.std == pytest.approx(math.sqrt(second * size / (size - 1)), rel=1e-6)
    assert (found.min, found.max) == (min(values), max(values))
    if found.skewness is not None:  # SciPy gives none where a deviation is lost in rounding
        assert found.skewness == pytest.approx(third / second**1.5, rel=1e-4, abs=1e-4)
        assert found.kurtosis == pytest.approx(fourth / second**2 - 3, rel=1e-4, abs=1e-4)


def test_skewness_and_kurtosis_are_scipys_defaults() -> None:
    values = np.random.default_rng(1).lognormal(size=500)
    found = describe(values)
    assert (found.skewness, found.kurtosis) == (stats.skew(values), stats.kurtosis(values))
    assert found.skewness is not None
    assert found.skewness > 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Moments(None, None, None, None, None, None)),
        ([3.0], Moments(3.0, None, 3.0, 3.0, None, None)),
        ([3.0, 3.0], Moments(3.0, 0.0, 3.0, 3.0, None, None)),
        ([1e308, 1e308, -1e308], Moments(None, None, -1e308, 1e308, None, None)),
        ([1.0, 1.0 + 2**-52], Moments(1.0, 2**-52, 1.0, 1.0 + 2**-52, None, None)),
    ],
)
def test_a_figure_that_is_not_defined_is_none(values: list[float], expected: Moments) -> None:
    assert describe(np.array(values, np.float64)) == expected
