"""Results of time series computed in different ways, which are equal to the last bit."""

import datetime as dt
import itertools
import math
from collections.abc import Callable, Sequence
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.expression import OPERATORS, Scope, parse
from optaic.expression.compiler import evaluate
from optaic.expression.sums import PairSum, SplitSum, Sum

Pair = tuple[float | None, float | None]

_FIRST = dt.date(2020, 1, 1)
_HAVE_WINDOWS = [
    name
    for name, signature in OPERATORS.items()
    if any(parameter.name == "min_periods" for parameter in signature.parameters)
    and signature.warm_up([parameter.minimum for parameter in signature.parameters]) is not None
]
_LAGS = ["REF", "DELTA", "PCT", "FFILL"]
_KINDS = {
    "prices": st.integers(1, 100_000).map(lambda cents: cents / 100),
    "returns": st.floats(-0.2, 0.2),
    "few values": st.sampled_from([0.0, -0.0, 0.1, 1.0, 2.5, -2.5]),
    "all numbers": st.floats(allow_nan=False, allow_infinity=False),
    "sums that cancel": st.sampled_from([1e16, -1e16, 1.0, 0.1, 3e-17]),
    "about as many digits as exact sums can have": st.builds(
        lambda value, places: value / 2**places, st.floats(-1, 1), st.integers(0, 45)
    ),
    "small moves on a large level": st.floats(-1, 1).map(lambda move: 1e12 + move),
}


@st.composite
def draw_series(draw: st.DrawFn, *, has_gaps: bool) -> tuple[list[Pair], list[Pair]]:
    """Return values of one entity, and values before them that may be of another kind."""

    def make(longest: int) -> list[Pair]:
        numbers = _KINDS[draw(st.sampled_from(sorted(_KINDS)))]
        values = st.one_of(numbers, numbers, numbers, st.none()) if has_gaps else numbers
        return draw(st.lists(st.tuples(values, values), max_size=longest))

    return make(40), make(20)


@st.composite
def draw_call(draw: st.DrawFn, names: Sequence[str]) -> tuple[str, int, int | None]:
    """Return a call of a window without `min_periods`, its n, and some `min_periods` or none."""
    name = draw(st.sampled_from(names))
    signature = OPERATORS[name]
    n = draw(st.integers(int(signature.parameters[0].minimum), 16))
    operands = ", ".join("xy"[: signature.values])
    share = ", 0.3" if name == "QUANTILE" else ""
    fewest = draw(st.one_of(st.none(), st.integers(1, n))) if name in _HAVE_WINDOWS else None
    return f"{name}({operands}, {n}{share})", n, fewest


def with_fewest(call: str, fewest: int | None) -> str:
    """Return the call with `min_periods`."""
    return call if fewest is None else f"{call[:-1]}, min_periods={fewest})"


def compute(text: str, pairs: Sequence[Pair]) -> list[str]:
    """Return the bits of each result."""
    table = pl.DataFrame(
        {
            "date": [_FIRST + dt.timedelta(days=day) for day in range(len(pairs))],
            "entity": ["a"] * len(pairs),
            "x": [x for x, _ in pairs],
            "y": [y for _, y in pairs],
        },
        schema={"date": pl.Date, "entity": pl.String, "x": pl.Float64, "y": pl.Float64},
    )
    found = evaluate(parse(text), table)["value"]
    return ["absent" if value is None else value.hex() for value in found]


def test_every_time_series_but_those_with_a_state_is_compared_here() -> None:
    names = {name for name, signature in OPERATORS.items() if signature.scope is Scope.TIME_SERIES}
    assert names - {*_HAVE_WINDOWS, *_LAGS} == {"EMA", "HUMP"}


@settings(deadline=None, max_examples=400)
@given(draw_series(has_gaps=True), draw_call([*_HAVE_WINDOWS, *_LAGS]))
def test_a_result_is_the_same_wherever_the_series_begins(
    series: tuple[list[Pair], list[Pair]], call: tuple[str, int, int | None]
) -> None:
    values, before = series
    text = with_fewest(call[0], call[2])
    warm_up = parse(text).warm_up()
    assert warm_up is not None
    expected = compute(text, values)[warm_up:]
    assert compute(text, [*before, *values])[len(before) + warm_up :] == expected, text


@settings(deadline=None, max_examples=200)
@given(draw_series(has_gaps=False), draw_call(_HAVE_WINDOWS))
def test_a_window_without_gaps_is_the_same_with_and_without_min_periods(
    series: tuple[list[Pair], list[Pair]], call: tuple[str, int, int | None]
) -> None:
    (values, before), (text, n, fewest) = series, call
    expected = compute(text, values)[n - 1 :]
    assert compute(with_fewest(text, fewest or 1), values)[n - 1 :] == expected
    with_gap = [*before, (None, None), *values]
    found = compute(with_fewest(text, fewest or 1), with_gap)
    assert found[len(before) + n :] == expected, "a gap before the window"


@settings(deadline=None, max_examples=400)
@given(draw_series(has_gaps=True), draw_call(_HAVE_WINDOWS))
def test_exact_sums_and_pairs_give_the_same(
    series: tuple[list[Pair], list[Pair]], call: tuple[str, int, int | None]
) -> None:
    values, before = series
    text = with_fewest(call[0], call[2])
    found = compute(text, [*before, *values])
    with mock.patch.object(SplitSum, "begin", return_value=None):
        assert compute(text, [*before, *values]) == found, text


def test_an_exponential_average_is_the_same_among_many_entities_and_alone() -> None:
    rng = np.random.default_rng(9)
    entities, days = (
        [f"e{number:03}" for number in range(450)],
        [_FIRST + dt.timedelta(days=d) for d in range(40)],
    )
    x = np.where(rng.random((40, 450)) < 0.1, np.nan, rng.normal(size=(40, 450)))
    x[:, 7] = np.where(rng.random(40) < 0.5, 1.7e308, -1.7e308)  # whose differences are no numbers
    keys = pl.DataFrame({"date": days}).join(pl.DataFrame({"entity": entities}), how="cross")
    table = keys.with_columns(x=pl.Series(x.ravel(), nan_to_null=True))
    for text in ("EMA(x, 1)", "EMA(x, 5)", "EMA(x, 20, min_periods=3)"):
        whole = evaluate(parse(text), table)
        for some in (entities[:10], entities[440:]):
            part = evaluate(parse(text), table.filter(pl.col("entity").is_in(some)))
            assert whole.filter(pl.col("entity").is_in(some)).equals(part), (text, some)


def test_powers_logarithms_and_exponentials_have_the_bits_of_the_c_library() -> None:
    rng = np.random.default_rng(17)
    x = np.exp(rng.normal(0, 3, 5_000))
    y = rng.normal(0, 2, 5_000)
    functions: dict[str, Callable[[float, float], float]] = {
        "x ^ y": math.pow,
        "x ^ 0.3": lambda a, _: math.pow(a, 0.3),
        "2 ^ y": lambda _, b: math.pow(2.0, b),
        "EXP(y)": lambda _, b: math.exp(b),
        "LOG(x)": lambda a, _: math.log(a),
    }
    pairs: list[Pair] = list(zip(x.tolist(), y.tolist(), strict=True))
    for text, function in functions.items():
        assert compute(text, pairs) == [function(*pair).hex() for pair in zip(x, y, strict=True)], text


@pytest.mark.parametrize("n", [2, 20, 252, 2_000])
def test_usual_values_are_added_exactly_and_those_of_all_magnitudes_in_pairs(n: int) -> None:
    rng = np.random.default_rng(3)
    shape = (2_000, 4)
    usual = {
        "prices": 100 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=0).clip(-2, 2)),
        "volumes": np.round(np.exp(rng.normal(12, 1, shape))),
        "cents": rng.integers(-(10**6), 10**6, shape) / 128,
    }
    for name, values in usual.items():
        assert isinstance(Sum.of(values, 1, n), SplitSum), name
    each = np.stack(
        [usual["prices"][:, 0], 1e-6 * usual["prices"][:, 1], 1e6 * usual["volumes"][:, 2]], axis=1
    )
    assert isinstance(Sum.of(each, 1, n), SplitSum), "entities of different sizes"
    mixed = rng.normal(size=shape) * 10.0 ** rng.integers(-12, 12, shape)
    assert isinstance(Sum.of(mixed, 1, n), PairSum)
    assert isinstance(Sum.of(usual["prices"] * 1e303, 1, n), PairSum)


@pytest.mark.parametrize("name", ["COV", "BETA", "RESID", "CORR"])
def test_a_missing_value_beside_a_constant_series_makes_the_window_absent(name: str) -> None:
    for missing, constant in itertools.product((3, 5), (0, 1)):
        pairs: list[Pair] = [(1.0, float(day)) if constant == 0 else (float(day), 1.0) for day in range(12)]
        pairs[missing] = (pairs[missing][0], None) if constant == 0 else (None, pairs[missing][1])
        found = compute(f"{name}(x, y, 4)", pairs)
        assert found[missing : missing + 4] == ["absent"] * 4
