"""Rolling operators over series that are hard to compute with, against exact arithmetic and against their own slices."""

import datetime as dt
import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.expression import parse
from optaic.expression.compiler import evaluate

_LENGTH = 120
_FIRST = dt.date(2020, 1, 1)
_WINDOWS = (2, 3, 7, 20, 64, 100)
_OPERATORS = ("SUM(x, {n})", "MEAN(x, {n})", "STD(x, {n})", "MIN(x, {n})", "MAX(x, {n})", "CORR(x, y, {n})")


def make_series() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of series by what makes them hard."""
    rng = np.random.default_rng(7)

    def noise() -> np.ndarray:
        return rng.normal(size=_LENGTH)

    def decay() -> np.ndarray:
        return np.asarray(5e9 * np.exp(np.cumsum(-0.2 + 0.03 * noise())))

    def mixed() -> np.ndarray:
        return np.asarray(noise() * 10.0 ** rng.integers(-12, 12, _LENGTH))

    return {
        "prices": (100 * np.exp(np.cumsum(0.01 * noise())), 50 * np.exp(np.cumsum(0.02 * noise()))),
        "decay by ten orders of magnitude": (decay(), decay()),
        "small moves on a large level": (1e12 + noise(), 1e12 - noise()),
        "a spike before the window": (np.concatenate([[1e15], noise()[1:]]), noise()),
        "sums that cancel": (np.where(np.arange(_LENGTH) % 2, 1e16, -1e16) + noise(), noise()),
        "all magnitudes": (mixed(), mixed()),
    }


def compute(text: str, x: np.ndarray, y: np.ndarray, first: int = 0) -> list[float | None]:
    """An expression over one entity, whose series begin at a session."""
    table = pl.DataFrame(
        {
            "date": [_FIRST + dt.timedelta(days=day) for day in range(first, len(x))],
            "entity": "a",
            "x": x[first:],
            "y": y[first:],
        }
    )
    return evaluate(parse(text), table)["value"].to_list()


def exactly(name: str, x: list[float], y: list[float]) -> float | None:
    """One window in exact arithmetic, by two passes; rounded at the end."""
    n, a, b = len(x), [Fraction(value) for value in x], [Fraction(value) for value in y]
    if name in {"SUM", "MEAN"}:
        return float(sum(a) / (n if name == "MEAN" else 1))
    if name in {"MIN", "MAX"}:
        return float(min(a) if name == "MIN" else max(a))
    mean = sum(a, Fraction()) / n
    from_mean = [value - mean for value in a]
    squares = sum((value * value for value in from_mean), Fraction())
    if name == "STD":
        return _root(squares / (n - 1))
    other_mean = sum(b, Fraction()) / n
    others = [value - other_mean for value in b]
    product = sum((first * second for first, second in zip(from_mean, others, strict=True)), Fraction())
    other_squares = sum((value * value for value in others), Fraction())
    if not squares or not other_squares:
        return None
    return math.copysign(_root(product * product / (squares * other_squares)), -1 if product < 0 else 1)


def _root(value: Fraction) -> float:
    """A square root to the last digit but one, however large or small the value is."""
    places = (value.denominator.bit_length() - value.numerator.bit_length()) // 2 + 64
    return float(math.isqrt(int(value * Fraction(4) ** places)) / Fraction(2) ** places)


def to_bits(value: float | None) -> str:
    """What tells two numbers apart, also two zeros."""
    return "absent" if value is None else value.hex()


@pytest.mark.parametrize("text", _OPERATORS)
@pytest.mark.parametrize("case", sorted(make_series()))
def test_a_window_does_not_depend_on_values_outside_of_it(case: str, text: str) -> None:
    x, y = make_series()[case]
    name = text.partition("(")[0]
    for n in _WINDOWS:
        found = compute(text.format(n=n), x, y)
        for end in range(n - 1, _LENGTH, 4):
            window = slice(end - n + 1, end + 1)
            expected = exactly(name, x[window].tolist(), y[window].tolist())
            assert found[end] == pytest.approx(expected, rel=1e-10, abs=0), (n, end)


@pytest.mark.parametrize("text", _OPERATORS)
@pytest.mark.parametrize("case", sorted(make_series()))
def test_a_window_over_a_slice_equals_the_whole_series_bit_for_bit(case: str, text: str) -> None:
    x, y = make_series()[case]
    for n in _WINDOWS:
        whole = compute(text.format(n=n), x, y)
        for first in (1, 5, 19):
            part = compute(text.format(n=n), x, y, first)
            assert part[n - 1 :] == whole[first + n - 1 :], (n, first)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40),
    st.integers(2, 12),
    st.lists(st.floats(-1e12, 1e12), max_size=20),
)
def test_values_before_a_window_do_not_change_its_result(
    values: list[float], n: int, before: list[float]
) -> None:
    alone, behind = np.array(values), np.array([*before, *values])
    for text in (operator.format(n=n) for operator in _OPERATORS):
        expected = compute(text, alone, -alone)[n - 1 :]
        found = compute(text, behind, -behind)[len(before) + n - 1 :]
        assert list(map(to_bits, found)) == list(map(to_bits, expected)), text


def test_the_deviation_of_equal_values_is_zero_and_their_correlation_is_absent() -> None:
    for value, n in itertools.product((0.1, 1e17 / 3, -7.7e-9), (2, 3, 7, 100)):
        x = np.full(_LENGTH, value)
        assert set(compute(f"STD(x, {n})", x, x)[n - 1 :]) == {0.0}
        assert set(compute(f"CORR(x, y, {n})", x, np.arange(_LENGTH))) == {None}


def make_extremes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of series whose squares, or even sums, are numbers too large or too small to be held."""
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=_LENGTH), rng.normal(size=_LENGTH)
    turns = np.where(np.arange(_LENGTH) // 30 % 2, 1e-290, 1e290)
    return {
        "1e300": (x * 1e300, y * 1e300),
        "1e-300": (x * 1e-300, y * 1e-300),
        "1e160 beside 1": (x * 1e160, y),
        "1e-160 beside 1e300": (x * 1e-160, y * 1e300),
        "small moves on a level of 1e250": (1e250 * (1 + 1e-12 * x), 1e-250 * (1 + 1e-12 * y)),
        "one after the other": (x * turns, y / turns),
        "all at once": (
            x * 10.0 ** rng.integers(-300, 300, _LENGTH),
            y * 10.0 ** rng.integers(-300, 300, _LENGTH),
        ),
        "the largest numbers": (1.7e308 * (1 - 0.1 * np.abs(np.sin(x))), 1.7e308 * np.cos(y)),
        "the edge of scales": (2.0**400 * (1 + x / 10), 2.0**-400 * (1 + y / 10)),
    }


@pytest.mark.parametrize("text", _OPERATORS)
@pytest.mark.parametrize("case", sorted(make_extremes()))
def test_a_window_is_right_however_large_or_small_its_values_are(case: str, text: str) -> None:
    x, y = make_extremes()[case]
    name = text.partition("(")[0]
    for n in (2, 7, 20):
        found = compute(text.format(n=n), x, y)
        for end in range(n - 1, _LENGTH, 3):
            window = slice(end - n + 1, end + 1)
            try:
                expected = exactly(name, x[window].tolist(), y[window].tolist())
            except OverflowError:
                expected = None  # no number holds it
            wanted = expected if expected is None else pytest.approx(expected, rel=1e-10, abs=0)
            assert found[end] == wanted, (n, end)
        part = compute(text.format(n=n), x, y, 19)
        assert list(map(to_bits, part[n - 1 :])) == list(map(to_bits, found[19 + n - 1 :]))


def test_a_deviation_too_small_for_a_float_is_missing_and_not_zero() -> None:
    least = math.ulp(0.0)
    x = np.where(np.arange(_LENGTH) % 5, 0.0, least)
    assert set(compute("STD(x, 5)", x, x)[4:]) == {None}, "it is less than half of the least number"
    assert compute("STD(x, 5)", x * 1000, x)[-1] == pytest.approx(1000 * least / math.sqrt(5), abs=least)
    assert set(compute("CORR(x, y, 5)", x, -x)[4:]) == {-1.0}


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1.0, 1e200, 1e307])
def test_a_cross_section_of_any_size_is_compared_in_the_same_way(scale: float) -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0]) * scale
    table = pl.DataFrame({"date": _FIRST, "entity": list("abcd"), "x": values})
    mean = float(sum(map(Fraction, values)) / 4)
    expected = {
        "ZSCORE(x)": [(each - 4) / math.sqrt(38 / 3) for each in (1, 2, 4, 9)],
        "SCALE(x)": [each / 16 for each in (1, 2, 4, 9)],
        "DEMEAN(x)": [each - mean for each in values],
    }
    for text, wanted in expected.items():
        found = evaluate(parse(text), table)["value"].to_list()
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-15 * scale), text


def test_an_absent_value_makes_the_windows_that_hold_it_absent_and_no_other() -> None:
    x = np.arange(20.0)
    x[7] = np.nan
    for text in (operator.format(n=4) for operator in _OPERATORS):
        found = compute(text, x, np.sqrt(np.arange(20.0)))
        assert [day for day, value in enumerate(found) if value is None] == [0, 1, 2, 7, 8, 9, 10], text


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("ZSCORE(x)", lambda x: (x - x.mean()) / x.std(ddof=1)),
        ("DEMEAN(x)", lambda x: x - x.mean()),
        ("SCALE(x)", lambda x: x / x.abs().sum()),
    ],
)
def test_a_cross_section_of_usual_size_is_computed_by_the_plain_formula_bit_for_bit(
    text: str, formula: Callable[[pl.Expr], pl.Expr]
) -> None:
    rng = np.random.default_rng(5)
    dates = pl.date_range(_FIRST, _FIRST + dt.timedelta(days=199), eager=True)
    entities = [f"e{number}" for number in range(33)]
    table = pl.DataFrame({"date": dates}).join(pl.DataFrame({"entity": entities}), how="cross")
    given = rng.normal(size=table.height)
    table = table.with_columns(
        pl.Series("x", [None if draw > 2.5 else float(draw) for draw in given], dtype=pl.Float64)
    ).sort("entity", "date")
    x = pl.when(pl.lit(value=True)).then(pl.col("x"))
    expected = table.with_columns(value=formula(x).over("date")).sort("date", "entity")["value"]
    found = evaluate(parse(text), table)["value"]
    assert list(map(to_bits, found)) == list(map(to_bits, expected))
