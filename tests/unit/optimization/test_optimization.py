"""The pure parts of an optimization, each against a formula in plain pandas or numbers computed by hand."""

import datetime as dt
import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from optaic.plugins import NoDataInRange, SchemaMismatch
from support.small_panels import WEEKDAYS, table
from worker.optimization.decisions import add_decision, table_of, weights_before
from worker.optimization.measures import measure
from worker.optimization.returns import read_past
from worker.optimization.scores import combine_scores

N = None
CHANCE = np.random.default_rng(5)


def signal(seed: int, names: str = "abcdef", days: int = 6) -> pl.DataFrame:
    chance = np.random.default_rng(seed)
    return table("value", {name: chance.normal(size=days).tolist() for name in names})


def standardized(frame: pl.DataFrame, day: dt.date) -> pd.Series:
    values = frame.filter(pl.col("date") == day).to_pandas().set_index("entity")["value"].dropna()
    return (values - values.mean()) / values.std(ddof=1)


@pytest.mark.parametrize("weight", [None, 0.7, 1.0, 0.0])
def test_several_signals_are_the_weighted_mean_of_their_z_scores(weight: float | None) -> None:
    signals = [signal(seed) for seed in range(3)]
    day = WEEKDAYS[5]
    found = combine_scores(signals, 1.0 / 3.0 if weight is None else weight, None)
    weights = [1 / 3] * 3 if weight is None else [weight, (1 - weight) / 2, (1 - weight) / 2]
    expected = sum(
        share * standardized(each, day) for share, each in zip(weights, signals, strict=True) if share
    )
    assert found.date == day
    if weight == 1.0:  # it is alone, and taken as it is
        expected = signals[0].filter(pl.col("date") == day).to_pandas().set_index("entity")["value"]
    assert found.by_entity == pytest.approx(expected.to_dict())


def test_the_decision_is_on_the_last_date_that_every_signal_has() -> None:
    long, short = signal(1, days=6), signal(2, days=4)
    holes = short.with_columns(
        pl.when(pl.col("date") == WEEKDAYS[3]).then(None).otherwise("value").alias("value")
    )
    assert combine_scores([long], 1.0, None).date == WEEKDAYS[5]
    assert combine_scores([long, short], 0.5, None).date == WEEKDAYS[3]
    assert combine_scores([long, holes], 0.5, None).date == WEEKDAYS[2]
    assert combine_scores([long, short], 0.5, WEEKDAYS[1]).date == WEEKDAYS[1]
    with pytest.raises(
        NoDataInRange, match=f"data_date: {WEEKDAYS[4]} .* the last one before is {WEEKDAYS[3]}"
    ):
        combine_scores([long, short], 0.5, WEEKDAYS[4])
    with pytest.raises(NoDataInRange, match=f"the first one is {WEEKDAYS[0]}"):
        combine_scores([long], 1.0, dt.date(2019, 1, 1))


def test_an_entity_needs_a_value_of_each_signal_that_counts() -> None:
    one, other = (
        table("value", {"a": [1.0], "b": [2.0], "c": [4.0]}),
        table("value", {"b": [1.0], "c": [5.0]}),
    )
    assert set(combine_scores([one, other], 0.5, None).by_entity) == {"b", "c"}
    assert set(combine_scores([one, other], 1.0, None).by_entity) == {"a", "b", "c"}
    equal = table("value", {"a": [1.0], "b": [1.0]})
    with pytest.raises(NoDataInRange, match="all equal"):
        combine_scores([one, equal], 0.5, None)
    with pytest.raises(NoDataInRange, match="no date"):
        combine_scores([one, other.with_columns(pl.lit(dt.date(2021, 1, 1)).alias("date"))], 0.5, None)


def test_returns_are_those_of_carried_closes_until_the_day() -> None:
    closes: dict[str, list[float | None]] = {
        "a": [10.0, 11.0, N, 12.1, 13.0, 99.0],
        "b": [N, N, 20.0, 22.0, 11.0, 99.0],
        "c": [5.0, 6.0, 3.0, N, N, 99.0],
    }
    past = read_past(table("close", closes), WEEKDAYS[4])
    expected: dict[str, list[float | None]] = {
        "a": [0.1, 0.0, 0.1, 13.0 / 12.1 - 1.0],
        "b": [N, N, 0.1, -0.5],
        "c": [0.2, -0.5, 0.0, 0.0],
    }
    assert past.returns["date"].to_list() == WEEKDAYS[1:5]
    for name, line in expected.items():
        found: list[Any] = past.returns[name].to_list()
        assert found == [N if value is None else pytest.approx(value) for value in line]
    assert past.priced == {"a", "b"}, "c has no close on the last session"
    assert (past.last_session, past.thin_dates) == (WEEKDAYS[4], 0)
    planted = table("close", {**closes, "a": [*closes["a"][:5], 1e6]})
    assert read_past(planted, WEEKDAYS[4]).returns.equals(past.returns, null_equal=True)


def test_a_date_with_few_closes_is_no_session() -> None:
    closes: dict[str, list[float | None]] = {name: [1.0, N, 2.0] for name in "bcd"} | {"a": [1.0, 5.0, 2.0]}
    past = read_past(table("close", closes), WEEKDAYS[2])
    assert past.returns["date"].to_list() == [WEEKDAYS[2]]
    assert past.returns["a"].to_list() == [1.0]
    assert past.thin_dates == 1


def test_prices_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(NoDataInRange, match=f"covariance: the prices begin on {WEEKDAYS[0]}"):
        read_past(table("close", {"a": [1.0]}), dt.date(2019, 1, 1))
    with pytest.raises(SchemaMismatch, match="not positive"):
        read_past(table("close", {"a": [1.0, 0.0]}), WEEKDAYS[1])
    with pytest.raises(SchemaMismatch, match="'date'"):
        read_past(table("close", {"date": [1.0, 1.0]}), WEEKDAYS[1])
    with pytest.raises(SchemaMismatch, match="no column 'close'"):
        read_past(table("price", {"a": [1.0]}), WEEKDAYS[1])


def test_figures_are_those_of_the_formulas() -> None:
    past = pl.DataFrame({name: CHANCE.normal(0.001, 0.02, 60).tolist() for name in "abcd"})
    past = past.with_columns(pl.when(pl.int_range(60) < 5).then(None).otherwise("b").alias("b"))
    weights = {"a": 0.6, "b": 0.7, "c": -0.3, "d": 0.0}
    found = measure(weights, past, {"a": 0.5, "z": 0.5})
    w, used = np.array([0.6, 0.7, -0.3]), past.select("a", "b", "c").drop_nulls().to_numpy()
    covariance = np.cov(used.T, ddof=1) * 252
    risk = math.sqrt(w @ covariance @ w)
    assert found["sessions"] == 55
    assert found["expected_return"] == pytest.approx(used.mean(axis=0) @ w * 252)
    assert found["volatility"] == pytest.approx(risk)
    assert found["sharpe_ratio"] == pytest.approx(used.mean(axis=0) @ w * 252 / risk)
    assert found["diversification_ratio"] == pytest.approx(np.sqrt(np.diag(covariance)) @ np.abs(w) / risk)
    assert found["effective_n"] == pytest.approx(1.0 / (0.36 + 0.49 + 0.09))
    assert (found["concentration"], found["assets"]) == (0.7, 3)
    assert found["gross_exposure"] == pytest.approx(1.6)
    assert found["net_exposure"] == pytest.approx(1.0)
    assert found["turnover"] == pytest.approx((0.1 + 0.7 + 0.3 + 0.5) / 2)


def test_figures_that_are_not_defined_are_none() -> None:
    nothing = measure({"a": 0.0}, pl.DataFrame({"a": [0.1, 0.2]}), None)
    assert (nothing["effective_n"], nothing["volatility"], nothing["turnover"]) == (None, None, None)
    assert nothing["gross_exposure"] == 0.0
    still = measure({"a": 1.0}, pl.DataFrame({"a": [0.0, 0.0, 0.0]}), {})
    assert (still["volatility"], still["sharpe_ratio"], still["diversification_ratio"]) == (0.0, None, None)
    assert still["turnover"] == 0.5
    short = measure({"a": 1.0}, pl.DataFrame({"a": [0.1]}), None)
    assert (short["expected_return"], short["sessions"]) == (None, 1)


def test_decisions_stand_in_the_order_of_dates_whatever_order_they_are_made_in() -> None:
    late = add_decision(None, table_of(WEEKDAYS[5], {"b": 0.5, "a": 0.5}), WEEKDAYS[5])
    both = add_decision(late, table_of(WEEKDAYS[2], {"c": 1.0}), WEEKDAYS[2])
    assert both["date"].to_list() == [WEEKDAYS[2], WEEKDAYS[5], WEEKDAYS[5]]
    assert both["entity"].to_list() == ["c", "a", "b"]
    again = add_decision(both, table_of(WEEKDAYS[5], {"a": 1.0}), WEEKDAYS[5])
    assert again.rows() == [(WEEKDAYS[2], "c", 1.0), (WEEKDAYS[5], "a", 1.0)]
    assert weights_before(again, WEEKDAYS[5]) == (WEEKDAYS[2], {"c": 1.0})
    assert weights_before(again, WEEKDAYS[2]) is None
    assert weights_before(None, WEEKDAYS[2]) is None
