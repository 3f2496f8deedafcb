"""A training from panels to its figures, checked against plain formulas."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats

from optaic.plugins import InputTable, MLModule, NoDataInRange, PluginInvalid, SchemaMismatch
from support.panels import CONFIG, make_prices
from worker.builtin.ml_modules import HistGradientBoostingModule, LogisticModule, RidgeModule
from worker.training import Rows, Trained, TrainingSettings, build_rows, train

HORIZON = 3
MODULES = [RidgeModule, HistGradientBoostingModule, LogisticModule]


def _rows(prices: pl.DataFrame, **config: Any) -> Rows:
    tables = [InputTable("features", "prices", lambda: prices)]
    return build_rows({**CONFIG, **config}, tables, tables, {}, {})


def _train(module: type[MLModule], rows: Rows, **config: Any) -> Trained:
    given = {**CONFIG, **config}
    return train(lambda: module(given), rows, TrainingSettings.read(given), HORIZON)


def _predict(found: Trained, rows: Rows) -> list[float | None]:
    return found.module.predict(rows.table.select(rows.features))["prediction"].to_list()


@pytest.fixture(scope="module")
def rows() -> Rows:
    return _rows(make_prices())


def _validation(rows: Rows, found: Trained) -> pl.DataFrame:
    """The validation rows with the target, from what the version stores."""
    joined = found.validation_predictions.join(rows.table, on=["date", "entity"])
    return joined.filter(pl.col("_target").is_not_null() & pl.col("value").is_not_null())


def test_figures_of_a_regression_are_those_of_their_formulas(rows: Rows) -> None:
    found = _train(RidgeModule, rows)
    table = _validation(rows, found)
    truth, said = table["_target"].to_numpy(), table["value"].to_numpy()
    errors = said - truth
    daily = [
        stats.spearmanr(day["value"], day["_target"]).statistic
        for (_,), day in table.group_by("date", maintain_order=True)
    ]
    expected = {
        "rmse": math.sqrt(float(np.mean(errors**2))),
        "mae": float(np.mean(np.abs(errors))),
        "r2": 1 - float(np.sum(errors**2) / np.sum((truth - truth.mean()) ** 2)),
        "ic": float(np.mean(daily)),
        "ic_information_ratio": float(np.mean(daily) / np.std(daily, ddof=1)),
        "hit_rate": float(np.mean(np.sign(said) == np.sign(truth))),
    }
    for name, value in expected.items():
        assert found.metrics[f"validation_{name}"] == pytest.approx(value, abs=1e-12), name
        assert isinstance(found.metrics[f"train_{name}"], float)


def test_figures_of_a_classification_are_those_of_their_formulas(rows: Rows) -> None:
    found = _train(LogisticModule, rows)
    table = _validation(rows, found)
    truth, said = table["_target"].to_numpy() > 0, table["value"].to_numpy()
    one = said > 0.5
    hits = int((one & truth).sum())
    pairs = [(a, b) for a in said[truth] for b in said[~truth]]
    expected = {
        "accuracy": float(np.mean(one == truth)),
        "auc": float(np.mean([(a > b) + (a == b) / 2 for a, b in pairs])),
        "precision": hits / one.sum() if one.any() else None,
        "recall": hits / truth.sum(),
        "f1": 2 * hits / (one.sum() + truth.sum()),
    }
    measured = {name: found.metrics[f"validation_{name}"] for name in expected}
    assert measured == pytest.approx(expected, abs=1e-12)
    assert not any("rmse" in name for name in found.metrics)


@pytest.mark.parametrize("module", MODULES)
def test_the_same_training_makes_the_same_model(module: type[MLModule], rows: Rows) -> None:
    one, other = _train(module, rows), _train(module, rows)
    assert _predict(one, rows) == _predict(other, rows)
    assert one.metrics == other.metrics
    assert_frame_equal(one.importance, other.importance, check_exact=True)


@pytest.mark.parametrize("module", MODULES)
def test_no_future_value_changes_a_model_of_the_data_until_a_day(module: type[MLModule]) -> None:
    prices = make_prices(80)
    day = prices["date"][0] + dt.timedelta(days=59)
    known = _rows(prices.filter(pl.col("date") <= day))
    planted = prices.with_columns(
        pl.when(pl.col("date") > day).then(pl.col("close") * 1_000).otherwise("close").alias("close")
    )
    again = _rows(planted.filter(pl.col("date") <= day))
    one, other = _train(module, known), _train(module, again)
    assert one.train_end == day - dt.timedelta(days=HORIZON)
    assert one.label_end == day
    everything = _rows(prices)
    assert _predict(one, everything) == _predict(other, everything)


@pytest.mark.parametrize("module", MODULES)
def test_the_measured_model_has_seen_nothing_of_the_validation_part(module: type[MLModule]) -> None:
    prices = make_prices()
    found = _train(module, _rows(prices))
    start = found.validation_predictions["date"].min()
    assert isinstance(start, dt.date)
    assert found.validation_label_end < start
    # Targets of the validation part are returns into sessions from its start on.
    changed = prices.with_columns(
        pl.when(pl.col("date") > start)
        .then(pl.col("close") * pl.col("close"))
        .otherwise("close")
        .alias("close")
    )
    other = _train(module, _rows(changed))
    first = pl.col("date") == start
    assert_frame_equal(found.validation_predictions.filter(first), other.validation_predictions.filter(first))


def test_the_refitted_model_has_learnt_from_all_rows(rows: Rows) -> None:
    found, measured = _train(RidgeModule, rows), _train(RidgeModule, rows, refit=False)
    assert found.validation_predictions.equals(measured.validation_predictions)
    assert _predict(found, rows) != _predict(measured, rows)
    assert (found.train_end, found.label_end) == (dt.date(2020, 2, 26), dt.date(2020, 2, 29))
    # 57 sessions have a target, the last 12 validate, and the 3 before them are purged.
    assert (measured.train_end, measured.label_end) == (dt.date(2020, 2, 11), dt.date(2020, 2, 14))
    assert measured.label_end == found.validation_label_end
    later = measured.validation_predictions
    assert (later["date"].min(), later["date"].max()) == (dt.date(2020, 2, 15), dt.date(2020, 2, 29))


def test_importance_is_the_loss_of_r2(rows: Rows) -> None:
    table = rows.table.with_columns(pl.col("_target").alias("week"), pl.lit(1.0).alias("spread"))
    told = _train(RidgeModule, Rows(table.drop_nulls(), rows.features, 0))
    mean = dict(told.importance.select("feature", "mean").iter_rows())
    assert mean["week"] > 1
    assert mean["spread"] == 0
    assert told.metrics["importance"] == mean


def test_a_constant_target_has_no_r2_and_no_ic(rows: Rows) -> None:
    found = _train(
        RidgeModule, Rows(rows.table.with_columns(_target=pl.col("_target") * 0), rows.features, 0)
    )
    for part in ("train", "validation"):
        assert found.metrics[f"{part}_r2"] is None
        assert found.metrics[f"{part}_ic"] is None
        assert found.metrics[f"{part}_hit_rate"] is None
        assert found.metrics[f"{part}_rmse"] == pytest.approx(0, abs=1e-9)
    assert found.importance["mean"].null_count() == 2


def test_one_class_in_the_validation_part_has_no_auc(rows: Rows) -> None:
    late = dt.date(2020, 2, 10)
    table = rows.table.with_columns(
        pl.when(pl.col("date") > late).then(pl.col("_target").abs()).otherwise("_target").alias("_target")
    )
    found = _train(LogisticModule, Rows(table, rows.features, 0))
    assert found.metrics["validation_auc"] is None
    assert found.metrics["validation_accuracy"] is not None


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_feature_without_any_value(value: float | None, rows: Rows) -> None:
    table = rows.table.with_columns(pl.lit(value, pl.Float64).alias("week"))
    with pytest.raises(NoDataInRange, match="rows have a target and all features"):
        _train(RidgeModule, Rows(table, rows.features, 0))
    found = _train(HistGradientBoostingModule, Rows(table, rows.features, 0))
    assert found.metrics["validation_rows_without_prediction"] == 0
    assert found.metrics["features_without_values"] == ["week"]


def test_targets_that_are_no_numbers_teach_nothing(rows: Rows) -> None:
    odd = pl.when(pl.col("entity") == "e0").then(math.nan).when(pl.col("entity") == "e1").then(math.inf)
    table = rows.table.with_columns(odd.otherwise("_target").alias("_target"))
    found = _train(RidgeModule, Rows(table, rows.features, 0))
    clean = _train(RidgeModule, Rows(table.filter(~pl.col("entity").is_in(["e0", "e1"])), rows.features, 0))
    assert _predict(found, rows) == _predict(clean, rows)
    assert found.metrics["train_rmse"] == clean.metrics["train_rmse"]


def test_features_that_begin_after_the_target(rows: Rows) -> None:
    late = rows.table["date"][0] + dt.timedelta(days=20)
    found = _train(RidgeModule, Rows(rows.table.filter(pl.col("date") >= late), rows.features, 160))
    assert found.reference[0] == late
    assert found.metrics["targets_without_features"] == 160


class _Wrong(RidgeModule):
    def predict(self, features: pl.DataFrame) -> pl.DataFrame:
        return super().predict(features).head(1)


def test_a_model_that_answers_fewer_rows_is_refused(rows: Rows) -> None:
    with pytest.raises(PluginInvalid, match="returned 1 rows for"):
        _train(_Wrong, rows)


def test_rows_that_repeat_a_key_are_refused() -> None:
    prices = make_prices()
    with pytest.raises(SchemaMismatch):
        _rows(pl.concat([prices, prices.head(1)]))


def test_features_and_target_of_other_types_are_refused() -> None:
    prices = make_prices()
    other = prices.with_columns(pl.col("date").cast(pl.Datetime("us")))
    features = [InputTable("features", "prices", lambda: prices)]
    target = [InputTable("target", "later", lambda: other)]
    with pytest.raises(SchemaMismatch, match="'date' is"):
        build_rows(CONFIG, features, target, {}, {})


def test_a_target_from_a_table_of_its_own() -> None:
    prices = make_prices()
    features = [InputTable("features", "prices", lambda: prices)]
    target = [InputTable("target", "prices", lambda: prices.filter(pl.col("entity") != "e0"))]
    rows = build_rows(CONFIG, features, target, {}, {})
    assert rows.table.filter(pl.col("entity") == "e0")["_target"].null_count() == 60
    assert rows.unmatched_targets == 0
