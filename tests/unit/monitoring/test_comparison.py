"""The figures of a monitoring, each beside SciPy or a formula written once more, and the windows that they compare."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

from optaic.plugins import NoDataInRange, SchemaMismatch
from optaic.rules.monitoring import MonitoringSettings
from worker.monitoring import Findings, Labels, Subject, monitor
from worker.monitoring.drift import jensen_shannon, kolmogorov_smirnov, population_stability

FIRST = dt.date(2020, 1, 1)
KEYS = ("date", "entity")


def panel(sessions: int, entities: int = 3, **columns: Any) -> pl.DataFrame:
    """Return a table with a row for each session and entity; a column is given as a function of the number of rows."""
    days = [FIRST + dt.timedelta(days=number) for number in range(sessions)]
    rows = {
        "date": [day for day in days for _ in range(entities)],
        "entity": [f"e{number}" for _ in days for number in range(entities)],
    }
    made = {name: column(sessions * entities) for name, column in columns.items()}
    return pl.DataFrame({**rows, **made})


def watch(
    table: pl.DataFrame, training: Any = None, labels: Labels | None = None, **settings: Any
) -> Findings:
    subject = Subject(table, table["date"], KEYS, training, labels)
    return monitor(subject, MonitoringSettings(**settings))


def psi_by_hand(reference: Any, current: Any) -> float:
    """Return the index once more: by pandas, from bins between the quantiles, an empty bin counted as 0.0001."""
    inner = sorted(set(np.percentile(reference, range(10, 100, 10))))
    edges = [-math.inf, *inner, math.inf]
    total = 0.0
    for low, high in itertools.pairwise(edges):
        shares = [
            max(((each >= low) & (each < high)).mean(), 0.0001)
            for each in map(pd.Series, (reference, current))
        ]
        total += (shares[1] - shares[0]) * math.log(shares[1] / shares[0])
    return total


SAMPLES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "alike": (lambda r: r.normal(size=500), lambda r: r.normal(size=300)),
    "moved": (lambda r: r.normal(size=500), lambda r: r.normal(1, 2, 300)),
    "apart": (lambda r: r.normal(size=500), lambda r: r.normal(50, 1, 300)),
    "whole numbers": (lambda r: r.integers(0, 4, 500).astype(float), lambda r: r.integers(1, 6, 300).astype(float)),
    "constant": (lambda _: np.full(50, 3.0), lambda _: np.full(50, 3.0)),
    "constant, then another": (lambda _: np.full(50, 3.0), lambda _: np.full(50, 2.0)),
    "one value": (lambda _: np.array([1.0]), lambda _: np.array([2.0])),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_the_index_and_the_statistic_equal_formulas_written_once_more(name: str) -> None:
    numbers = np.random.default_rng(3)
    reference, current = (make(numbers) for make in SAMPLES[name])
    assert population_stability(reference, current) == pytest.approx(
        psi_by_hand(reference, current), rel=1e-12
    )
    expected = stats.ks_2samp(reference, current)
    assert kolmogorov_smirnov(reference, current) == pytest.approx((expected.statistic, expected.pvalue))


def test_the_statistic_of_many_values_is_that_of_scipy() -> None:
    numbers = np.random.default_rng(4)
    reference, current = numbers.normal(size=30_000), numbers.normal(0.02, 1, 20_000)
    expected = stats.ks_2samp(reference, current)
    assert kolmogorov_smirnov(reference, current) == pytest.approx(
        (expected.statistic, expected.pvalue), rel=1e-6
    )


def test_categories_are_compared_by_their_shares() -> None:
    before, now = pl.Series("x", ["a"] * 60 + ["b"] * 40), pl.Series("x", ["a"] * 10 + ["c"] * 30)
    p, q = np.array([0.6, 0.4, 0.0]), np.array([0.25, 0.0, 0.75])
    middle = (p + q) / 2
    divergence = [
        sum(one * math.log(one / m) for one, m in zip(each, middle, strict=True) if one) for each in (p, q)
    ]
    assert jensen_shannon(before, now) == pytest.approx(math.sqrt(sum(divergence) / 2))
    assert jensen_shannon(before, before) == pytest.approx(0.0, abs=1e-9)


def test_the_newest_sessions_are_compared_with_those_directly_before() -> None:
    table = panel(100, x=lambda n: np.arange(n, dtype=float))
    found = watch(table, window_sessions=10, reference_sessions=20)
    days = table["date"].unique().sort()
    said = found.metrics
    assert (said["current_start"], said["current_end"]) == (str(days[90]), str(days[99]))
    assert (said["reference_start"], said["reference_end"]) == (str(days[70]), str(days[89]))
    assert (said["reference_rows"], said["current_rows"]) == (60, 30)
    assert found.last_day == days[99]
    default = watch(table, window_sessions=10).metrics
    assert default["reference_sessions"] == 90, "no more than there are"


def test_the_training_period_is_the_reference_unless_sessions_are_named() -> None:
    table = panel(100, x=lambda n: np.arange(n, dtype=float))
    days = table["date"].unique().sort()
    training = (days[5], days[95])
    found = watch(table, training, window_sessions=10).metrics
    assert (found["reference_start"], found["reference_end"]) == (str(days[5]), str(days[89]))
    assert found["reference_is_training_period"] is True
    named = watch(table, training, window_sessions=10, reference_sessions=3).metrics
    assert (named["reference_start"], named["reference_is_training_period"]) == (str(days[87]), False)
    later = watch(table, (days[95], days[99]), window_sessions=10).metrics
    assert (later["reference_is_training_period"], later["reference_sessions"]) == (False, 90)


@pytest.mark.parametrize("sessions", [0, 1, 62, 63])
def test_too_few_sessions_are_refused_with_what_is_needed(sessions: int) -> None:
    table = panel(sessions, x=lambda n: np.arange(n, dtype=float))
    with pytest.raises(
        NoDataInRange, match=f"the data has {sessions} sessions, and monitoring needs more than 63"
    ):
        watch(table)
    assert watch(panel(64, x=lambda n: np.arange(n, dtype=float))).metrics["reference_sessions"] == 1


def test_shares_equal_those_of_pandas() -> None:
    numbers = np.random.default_rng(5)
    table = panel(
        100,
        x=lambda n: numbers.normal(size=n),
        y=lambda n: np.where(np.arange(n) % 7 == 0, np.nan, numbers.normal(size=n)),
    )
    wild = table.with_columns(
        pl.when(pl.int_range(pl.len()) == 295).then(40.0).when(pl.int_range(pl.len()) == 296).then(float("-inf"))
        .otherwise(pl.col("x")).alias("x"),
        pl.when(pl.int_range(pl.len()) % 5 == 0).then(None).otherwise(pl.col("y")).alias("y"),
    )  # fmt: skip
    found = watch(wild, window_sessions=10)
    frame = wild.to_pandas()
    before, now = frame[:270], frame[270:]
    outliers, present = 0, 0
    for name in ("x", "y"):
        figures = found.columns.row(by_predicate=pl.col("column") == name, named=True)
        known = before[name][np.isfinite(before[name])]
        z = (now[name] - known.mean()) / known.std()
        count = int((z.abs() > 5).sum())
        assert figures["missing_share"] == pytest.approx(now[name].isna().mean())
        assert figures["outlier_share"] == pytest.approx(count / now[name].notna().sum())
        outliers, present = outliers + count, present + int(now[name].notna().sum())
    assert outliers == 2
    assert found.metrics["outlier_share"] == pytest.approx(outliers / present)
    assert found.metrics["missing_share"] == pytest.approx(now[["x", "y"]].isna().to_numpy().mean())
    assert found.metrics["infinite_values"] == 1


def test_rows_that_repeat_a_key_are_duplicates() -> None:
    table = panel(70, x=lambda n: np.arange(n, dtype=float))
    doubled = pl.concat([table, table[-6:]])
    assert watch(table).metrics["duplicate_share"] == 0.0
    found = watch(doubled)
    assert found.metrics["duplicate_share"] == pytest.approx(6 / (63 * 3 + 6))
    assert [alert.metric for alert in found.alerts if not alert.column] == ["drift_share", "duplicate_share"]


def test_a_constant_column_has_outliers_only_where_it_changes() -> None:
    table = panel(70, x=lambda n: np.full(n, 0.1))
    found = watch(table)
    (figures,) = found.columns.iter_rows(named=True)
    assert (figures["psi"], figures["ks"], figures["outlier_share"], figures["is_drifted"]) == (
        0.0,
        0.0,
        0.0,
        False,
    )
    moved = watch(
        table.with_columns(pl.when(pl.int_range(pl.len()) == 209).then(0.2).otherwise("x").alias("x"))
    )
    assert moved.columns["outlier_count"].to_list() == [1]


def test_columns_that_come_and_go_are_named_and_judged_no_further() -> None:
    is_now = pl.int_range(pl.len()) >= 7 * 3
    table = panel(
        70, old=lambda n: np.arange(n, dtype=float), none=lambda n: [None] * n, text=lambda n: ["a"] * n
    )
    table = table.with_columns(
        pl.when(is_now).then("old").alias("new"), pl.when(~is_now).then("old").alias("old"),
        pl.when(~is_now).then("text").alias("text"),
    )  # fmt: skip
    found = watch(table)
    assert found.metrics["columns_without_reference"] == ["none", "new"]
    assert found.metrics["columns_without_values"] == ["old", "none", "text"]
    assert (found.metrics["drift_share"], found.metrics["compared_columns"]) == (None, 0)
    assert set(found.columns["psi"]) == {None}
    assert {(alert.metric, alert.column) for alert in found.alerts} == {
        ("missing_share", name) for name in ("old", "none", "text")
    }
    assert found.metrics["warnings"]


def test_a_table_without_anything_to_compare_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match="nothing to compare: besides its keys the table has 1 column,"):
        watch(panel(70).with_columns(pl.col("date").alias("listed")))


def test_what_is_neither_number_nor_category_is_left_out_and_said() -> None:
    table = panel(70, x=np.arange, flag=lambda n: np.arange(n) % 2 == 0)
    table = table.with_columns(pl.col("date").alias("listed"), pl.lit("x").alias("sector"))
    found = watch(table)
    assert found.metrics["columns_left_out"] == ["listed"]
    assert found.columns.select("column", "kind").rows() == [
        ("x", "number"),
        ("flag", "category"),
        ("sector", "category"),
    ]
    assert found.metrics["warnings"] == ["1 columns hold neither numbers nor categories and are not compared"]
    undated = pl.concat([table, table[-3:].with_columns(pl.lit(None, pl.Date).alias("date"))])
    assert watch(undated).metrics["rows_without_date"] == 3


def test_a_column_drifts_by_either_figure_and_the_share_counts_those_that_can_be_compared() -> None:
    numbers = np.random.default_rng(6)
    table = panel(
        126,
        same=lambda n: numbers.normal(size=n),
        moved=lambda n: numbers.normal(size=n) + 3 * (np.arange(n) >= n // 2),
        none=lambda n: [None] * n,
    )
    found = watch(table)
    assert found.metrics["drifted_columns"] == ["moved"]
    assert found.metrics["drift_share"] == 0.5
    of_column = found.metrics["columns"]
    assert isinstance(of_column, dict)
    before, now = (table["moved"].to_numpy()[part] for part in (slice(0, 189), slice(189, None)))
    assert of_column["moved"]["psi"] == pytest.approx(psi_by_hand(before, now))
    assert of_column["moved"]["ks"] == pytest.approx(stats.ks_2samp(before, now).statistic)
    calm = watch(table, max_psi=1000.0, max_ks=1.0)
    assert (calm.metrics["drift_share"], calm.metrics["largest_psi"]) == (0.0, found.metrics["largest_psi"])


def test_alerts_name_what_crossed_and_the_furthest_column_first() -> None:
    numbers = np.random.default_rng(7)

    def step(n: int, size: float) -> Any:
        return numbers.normal(size=n) + size * (np.arange(n) >= n // 2)

    table = panel(126, a=lambda n: step(n, 1.0), b=lambda n: step(n, 5.0), c=lambda n: step(n, 0.0))
    alerts = watch(table, max_ks=1.0, max_outlier_share=1.0).alerts
    assert [(alert.metric, alert.column) for alert in alerts[:3]] == [
        ("drift_share", ""), ("psi", "b"), ("psi", "a"),
    ]  # fmt: skip
    assert all(alert.value > alert.threshold for alert in alerts)
    assert watch(table, max_drift_share=1.0, max_psi=1e6, max_ks=1.0, max_outlier_share=1.0).alerts == []
    exact = watch(table, max_drift_share=2 / 3, max_ks=1.0, max_psi=1e6).metrics["drift_share"]
    assert exact == 0.0


def _predictions(sessions: int, factor: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    numbers = np.random.default_rng(8)
    table = panel(
        sessions, 20, value=lambda n: numbers.normal(size=n), noise=lambda n: numbers.normal(size=n)
    )
    labels = table.select("date", "entity", (factor * pl.col("value") + pl.col("noise")).alias("target"))
    return table.drop("noise"), labels


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.0])
def test_realised_figures_equal_those_of_pandas(factor: float) -> None:
    predictions, labels = _predictions(100, factor)
    known = labels.filter(pl.col("date") <= FIRST + dt.timedelta(days=94))  # the last five are not known yet
    found = watch(predictions, labels=Labels(known, predictions), window_sessions=20).metrics
    both = predictions.join(known, on=["date", "entity"]).to_pandas()
    inside = both[both["date"] >= pd.Timestamp(FIRST + dt.timedelta(days=80))]
    daily = inside.groupby("date").apply(lambda day: day["value"].corr(day["target"], method="spearman"))
    assert found["realised_ic"] == pytest.approx(daily.mean())
    assert found["hit_rate"] == pytest.approx((np.sign(inside["value"]) == np.sign(inside["target"])).mean())
    assert (found["labelled_sessions"], found["labelled_predictions"], found["predictions"]) == (15, 300, 400)
    assert found["labelled_predictions_since_start"] == 95 * 20
    alerts = watch(
        predictions, labels=Labels(known, predictions), window_sessions=20, min_hit_rate=0.45
    ).alerts
    told = {alert.metric for alert in alerts}
    assert ({"realised_ic", "hit_rate"} <= told) is (factor < 0)


def test_without_a_known_label_realised_figures_are_undefined() -> None:
    predictions, labels = _predictions(30, 1.0)
    found = watch(predictions, labels=Labels(labels[:0], predictions), window_sessions=10)
    assert (
        found.metrics["realised_ic"],
        found.metrics["hit_rate"],
        found.metrics["labelled_predictions"],
    ) == (None, None, 0)
    assert "realised_ic" not in {alert.metric for alert in found.alerts}
    assert any("label" in str(text) for text in found.metrics["warnings"])  # type: ignore[attr-defined] # a list


def test_a_classification_hits_where_the_probability_is_on_the_right_side() -> None:
    predictions = panel(12, 2, value=lambda n: [0.9, 0.4] * (n // 2))
    labels = predictions.select("date", "entity", pl.Series("target", [0.03, 0.03] * 12))
    found = watch(
        predictions, labels=Labels(labels, predictions, lambda target: target > 0.01), window_sessions=6
    )
    assert found.metrics["hit_rate"] == 0.5
