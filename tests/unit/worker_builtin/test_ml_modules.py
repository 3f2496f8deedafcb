"""Features out of expressions and models that learn from them, on real prices."""

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from optaic.expression import MACROS, Macro
from optaic.plugins import (
    InputTable,
    InvalidConfig,
    InvalidExpression,
    MLModule,
    NoDataInRange,
    NotFitted,
    SchemaMismatch,
)
from worker.builtin.features import build_features, build_target, read_features
from worker.builtin.ml_modules import (
    HistGradientBoostingModule,
    LogisticModule,
    RidgeModule,
    Winsorizer,
)
from worker.builtin.prices import load_closes

FEATURES = [
    {"name": "momentum", "expression": "MOMENTUM(close, 252, 21)"},
    {
        "name": "volatility",
        "expression": "STD(PCT(close, 1), 20)",
        "transforms": [{"name": "winsorize", "share": 0.02}, {"name": "standardize"}],
    },
]
MODULES: list[type[MLModule]] = [RidgeModule, HistGradientBoostingModule, LogisticModule]
TARGET = {"target": {"expression": "PCT(close, 5)", "horizon": 5}}


@pytest.fixture(scope="module")
def closes() -> pl.DataFrame:
    return load_closes().filter(
        pl.col("date").is_between(dt.date(2015, 1, 2), dt.date(2018, 12, 31))
        & pl.col("entity").is_in(["AAPL", "AMD", "BAC", "GE", "KO", "XOM"])
    )


@pytest.fixture(scope="module")
def table(closes: pl.DataFrame) -> pl.DataFrame:
    tables = [InputTable("features", "prices", lambda: closes)]
    features = build_features(read_features({"features": FEATURES}), tables, MACROS)
    return features.join(build_target(TARGET, tables, MACROS), on=["date", "entity"], how="left")


def test_features_are_the_expressions_values(table: pl.DataFrame, closes: pl.DataFrame) -> None:
    assert table.columns == ["date", "entity", "momentum", "volatility", "target"]
    assert table.height == closes.height
    assert table["momentum"].null_count() == 252 * 6


def test_a_target_is_the_value_that_many_sessions_later(table: pl.DataFrame, closes: pl.DataFrame) -> None:
    apple = closes.filter(pl.col("entity") == "AAPL")["close"].to_list()
    targets = table.filter(pl.col("entity") == "AAPL").sort("date")["target"].to_list()
    assert targets[100] == pytest.approx(apple[105] / apple[100] - 1)
    assert targets[-5:] == [None] * 5
    assert targets[-6] is not None


@pytest.mark.parametrize("module", MODULES)
def test_a_model_learns_and_predicts(table: pl.DataFrame, module: type[MLModule]) -> None:
    known = table.filter(pl.col("date") < dt.date(2018, 1, 1))
    model = module({"features": FEATURES, **TARGET})
    model.fit(known, known["target"])
    found = model.predict(table)
    assert found.schema == {"prediction": pl.Float64, "confidence": pl.Float64}
    assert found.height == table.height
    complete = table.select(pl.all_horizontal(pl.col("momentum", "volatility").is_not_null())).to_series()
    if module is HistGradientBoostingModule:
        assert found["prediction"].null_count() == 0
    else:
        assert found["prediction"].is_not_null().to_list() == complete.to_list()
    assert found["prediction"].std() > 0  # type: ignore[operator]  # a number, since there are values
    again = module({"features": FEATURES, **TARGET})
    again.fit(known, known["target"])
    assert again.predict(table).equals(found)  # the same data, the same model


def test_ridge_is_scikit_learns_on_the_transformed_features(table: pl.DataFrame) -> None:
    """Computed by hand: quantiles and scale are those of the training rows."""
    known = table.filter(pl.col("date") < dt.date(2018, 1, 1))
    model = RidgeModule({"features": FEATURES, "alpha": 3.0})
    model.fit(known, known["target"])
    complete = known.drop_nulls()
    raw = complete["volatility"].to_numpy()
    low, high = np.quantile(raw, [0.02, 0.98])
    scaler = StandardScaler().fit(np.clip(raw, low, high)[:, None])

    def prepare(frame: pl.DataFrame) -> Any:
        volatility = np.clip(frame["volatility"].to_numpy(), low, high)[:, None]
        return np.column_stack([frame["momentum"].to_numpy(), scaler.transform(volatility)[:, 0]])

    expected = Ridge(alpha=3.0).fit(prepare(complete), complete["target"].to_numpy())
    later = table.filter(pl.col("date") > dt.date(2018, 6, 1)).drop_nulls()
    found = model.predict(later)["prediction"].to_numpy()
    assert np.allclose(found, expected.predict(prepare(later)), atol=1e-12)


@pytest.mark.parametrize("module", MODULES)
def test_a_relation_that_is_there_is_found(module: type[MLModule]) -> None:
    generator = np.random.default_rng(7)
    x, noise = generator.normal(size=600), generator.normal(size=600) / 10
    table = pl.DataFrame({"x": x, "unrelated": generator.normal(size=600)})
    features = [{"name": "x", "expression": "x"}, {"name": "unrelated", "expression": "unrelated"}]
    model = module({"features": features})
    model.fit(table.head(400), pl.Series(2 * x + noise).head(400))
    said = model.predict(table.tail(200))
    assert np.corrcoef(said["prediction"].to_numpy(), x[400:])[0, 1] > 0.8
    if module is LogisticModule:
        assert ((said["prediction"].to_numpy() > 0.5) == (x[400:] > 0)).mean() > 0.9
        assert said["confidence"].min() >= 0.5  # type: ignore[operator]  # there are values
        assert said["prediction"].is_between(0, 1).all()
    else:
        assert said["confidence"].null_count() == 200  # it has none, and pretends none


def test_absent_features_can_be_filled() -> None:
    table = pl.DataFrame({"x": [1.0, 2.0, 3.0, None, 100.0], "y": [1.0] * 5})
    plain = [{"name": "x", "expression": "x"}]
    filled = [{**plain[0], "transforms": [{"name": "fill_median"}]}]
    target = pl.Series([1.0, 2.0, 3.0, 4.0, 5.0])
    for features, nulls in ((plain, 1), (filled, 0)):
        model = RidgeModule({"features": features})
        model.fit(table, target)
        assert model.predict(table)["prediction"].null_count() == nulls


def test_winsorizing_uses_the_quantiles_of_the_training_data() -> None:
    step = Winsorizer(0.1).fit(np.arange(11.0)[:, None])
    assert step.transform(np.array([[-5.0], [5.0], [np.nan], [99.0]]))[:, 0].tolist()[:2] == [1.0, 5.0]
    assert step.transform(np.array([[99.0]]))[0, 0] == 9.0
    assert np.isnan(step.transform(np.array([[np.nan]]))[0, 0])


@pytest.mark.parametrize("module", MODULES)
def test_a_training_that_cannot_succeed_is_a_typed_error(module: type[MLModule]) -> None:
    features = [{"name": "x", "expression": "x"}]
    table = pl.DataFrame({"x": [1.0, 2.0, 3.0]})
    with pytest.raises(NotFitted):
        module({"features": features}).predict(table)
    with pytest.raises(NoDataInRange):
        module({"features": features}).fit(table, pl.Series([None, None, 1.0], dtype=pl.Float64))
    with pytest.raises(SchemaMismatch, match="x"):
        module({"features": features}).fit(table.rename({"x": "z"}), table["x"])
    if module is LogisticModule:
        with pytest.raises(NoDataInRange, match="threshold"):
            module({"features": features}).fit(table, table["x"])


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"features": []},
        {"features": ["close"]},
        {"features": [{"name": "x"}]},
        {"features": [{"name": "date", "expression": "close"}]},
        {"features": [{"name": "x", "expression": "a"}, {"name": "x", "expression": "b"}]},
        {"features": [{"name": "x", "expression": "a", "transforms": [{"name": "square"}]}]},
        {"features": [{"name": "x", "expression": "a", "transforms": [{"name": "winsorize", "share": 0.7}]}]},
    ],
)
def test_a_malformed_feature_is_a_typed_error(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        RidgeModule(config)


@pytest.mark.parametrize(
    ("module", "config"),
    [
        (RidgeModule, {"alpha": -1}),
        (HistGradientBoostingModule, {"learning_rate": 0}),
        (HistGradientBoostingModule, {"max_iter": 1.5}),
        (LogisticModule, {"c": 0}),
    ],
)
def test_a_bad_hyperparameter_is_a_typed_error(module: type[MLModule], config: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(config))):
        module({"features": [{"name": "x", "expression": "x"}], **config})


def test_a_bad_expression_names_its_feature(closes: pl.DataFrame) -> None:
    tables = [InputTable("features", "prices", lambda: closes)]
    broken = {"BROKEN": Macro("BROKEN", ("x",), "x +")}
    for text in ("open", "NOPE(close)", "BROKEN(close)"):
        features = read_features({"features": [{"name": "gap", "expression": text}]})
        with pytest.raises(InvalidExpression, match="gap"):
            build_features(features, tables, broken)
