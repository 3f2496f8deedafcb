"""Rank correlations by date, each beside SciPy's of the same pairs."""

import datetime as dt
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from worker.statistics.ic import daily_ic, rank_autocorrelation, summarize

DAY = dt.date(2024, 1, 1)
VALUES = st.one_of(
    st.none(), st.sampled_from([0.0, 1.0, 1.0, 2.0, -3.5, math.nan, math.inf, -math.inf, 1e300])
)


def day(number: int) -> dt.date:
    return DAY + dt.timedelta(days=number)


def rows(cells: list[list[Any]], *names: str) -> pl.DataFrame:
    """A table of a list for each day, with a tuple of values for each entity."""
    return pl.DataFrame(
        [
            {"date": day(number), "entity": f"e{entity}", **dict(zip(names, values, strict=True))}
            for number, of_day in enumerate(cells)
            for entity, values in enumerate(of_day)
        ],
        schema={"date": pl.Date, "entity": pl.String, **dict.fromkeys(names, pl.Float64)},
    )


def expected_of(pairs: list[tuple[float | None, float | None]]) -> tuple[float | None, int]:
    kept = [
        (one, other)
        for one, other in pairs
        if one is not None and other is not None and math.isfinite(one) and math.isfinite(other)
    ]
    if len({one for one, _ in kept}) < 2 or len({other for _, other in kept}) < 2:
        return None, len(kept)
    return float(stats.spearmanr(*zip(*kept, strict=True)).statistic), len(kept)


def assert_near(found: pl.Series, expected: list[float | None]) -> None:
    wanted = [math.nan if each is None else each for each in expected]
    assert found.fill_null(math.nan).to_list() == pytest.approx(wanted, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.tuples(VALUES, VALUES), max_size=7), max_size=5))
def test_the_coefficient_of_each_date_is_that_of_its_complete_pairs(
    cells: list[list[tuple[float | None, float | None]]],
) -> None:
    found = daily_ic(rows(cells, "score", "outcome"), "score", "outcome")
    expected = [(day(number), *expected_of(of_day)) for number, of_day in enumerate(cells) if of_day]
    assert found.columns == ["date", "ic", "count"]
    assert [row[0] for row in found.iter_rows()] == [row[0] for row in expected]
    assert found["count"].to_list() == [row[2] for row in expected]
    assert_near(found["ic"], [row[1] for row in expected])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.tuples(VALUES), min_size=4, max_size=4), min_size=2, max_size=5))
def test_ranks_are_compared_with_those_of_the_date_before(cells: list[list[tuple[float | None]]]) -> None:
    found = rank_autocorrelation(rows(cells, "score"), "score")
    expected = [
        expected_of([(now[0], then[0]) for now, then in zip(cells[at], cells[at - 1], strict=True)])
        for at in range(1, len(cells))
    ]
    assert found["date"].to_list() == [day(number) for number in range(1, len(cells))]
    assert_near(found["correlation"], [each[0] for each in expected])
    assert found["count"].to_list() == [each[1] for each in expected]


def test_an_entity_that_has_no_row_on_the_date_before_takes_no_part() -> None:
    table = rows([[(1.0,), (2.0,), (3.0,)], [(1.0,), (2.0,), (3.0,), (0.0,)]], "score")
    assert rank_autocorrelation(table, "score").rows() == [(day(1), 1.0, 3)]


def test_rows_may_be_in_any_order() -> None:
    numbers = np.random.default_rng(3)
    table = rows([[tuple(numbers.normal(size=2)) for _ in range(6)] for _ in range(9)], "score", "outcome")
    mixed = table.sample(fraction=1.0, shuffle=True, seed=4)
    assert daily_ic(mixed, "score", "outcome").equals(daily_ic(table, "score", "outcome"))
    assert rank_autocorrelation(mixed, "score").equals(rank_autocorrelation(table, "score"))


def test_the_summary_is_that_of_the_t_test() -> None:
    daily = np.random.default_rng(5).normal(0.02, 0.1, 250)
    found = summarize(pl.Series([*daily, None]))
    assert found.t_statistic == pytest.approx(stats.ttest_1samp(daily, 0.0).statistic)
    assert (found.mean, found.std) == pytest.approx((daily.mean(), daily.std(ddof=1)))
    assert found.information_ratio == pytest.approx(daily.mean() / daily.std(ddof=1))
    assert found.dates == 250


@pytest.mark.parametrize(
    ("coefficients", "expected"),
    [
        ([], (None, None, None, None, 0)),
        ([None, None], (None, None, None, None, 0)),
        ([0.25, None], (0.25, None, None, None, 1)),
        ([0.5, 0.5], (0.5, 0.0, None, None, 2)),
    ],
)
def test_a_summary_that_is_not_defined_is_none(coefficients: list[float | None], expected: Any) -> None:
    found = summarize(pl.Series(coefficients, dtype=pl.Float64))
    assert (found.mean, found.std, found.t_statistic, found.information_ratio, found.dates) == expected
