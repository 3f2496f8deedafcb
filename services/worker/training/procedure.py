"""Train a model: measure one that learned from the earlier sessions, then learn again from all of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl
from threadpoolctl import threadpool_limits

from optaic.plugins import MLModule, take_days, zone_of
from optaic.rules.columns import DATE, KEYS, PREDICTED
from worker.predicting import ask
from worker.training.importance import measure_importance
from worker.training.metrics import measure
from worker.training.rows import CONFIDENCE, LABEL_END, PREDICTION, TARGET, Rows, keep_labelled
from worker.training.settings import TrainingSettings
from worker.training.split import divide

_NAMES = dict(zip(PREDICTED, (PREDICTION, CONFIDENCE), strict=True))  # in the rows of a training
Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Trained:
    """A trained model, and what is known of it."""

    module: MLModule  # learnt from all rows, unless it was not to be refitted
    metrics: Mapping[str, object]
    validation_predictions: pl.DataFrame  # date, entity, value, confidence: of the model before the refit
    importance: pl.DataFrame  # feature, mean, std
    train_end: dt.date  # the last session of the rows that it used
    label_end: dt.date  # the session on which the last of their targets became known
    validation_label_end: dt.date  # the same of the model that was measured
    reference: tuple[dt.date, dt.date]  # the first and the last session that it learned from
    features_without_values: list[str]
    train_row_count: int
    validation_row_count: int


def train(
    make: Callable[[], MLModule],
    rows: Rows,
    settings: TrainingSettings,
    horizon: int,
    tell: Tell = lambda _fraction, _message: None,
) -> Trained:
    """Train on these rows; whatever is random follows from the seed.

    Raises:
        NoDataInRange: too little is left to learn from.
        PluginInvalid: the model does not answer with one prediction for each row.
    """
    features = rows.features
    split = divide(rows.table, settings, horizon)
    # The same sums in the same order, on every machine and beside every other run.
    with threadpool_limits(limits=1):
        tell(0.1, f"fitting on {split.train.height} rows")
        measured = make()
        _fit(measured, split.train, features)
        tell(0.4, "validating")
        later = _predict(measured, split.later, features)
        validation = keep_labelled(later)
        figures = {
            f"{part}_{name}": value
            for part, table in (
                ("train", _predict(measured, split.train, features)),
                ("validation", validation),
            )
            for name, value in measure(measured, table).items()
        }
        tell(0.5, "measuring the importance of features")
        importance = measure_importance(measured, validation, features, settings.seed)
        final, used = measured, split.train
        if settings.refit:
            used = keep_labelled(rows.table)
            tell(0.7, f"fitting on all {used.height} rows")
            final = make()
            _fit(final, used, features)
    absent = [name for name in features if not _has_value(used[name])]
    return Trained(
        module=final,
        features_without_values=absent,
        metrics={
            **figures,
            **split.counts,
            "validation_rows_without_prediction": validation[PREDICTION].is_null().sum(),
            "importance": dict(importance.select("feature", "mean").iter_rows()),
            "features_without_values": absent,
            "targets_without_features": rows.unmatched_targets,
            "is_refitted": settings.refit,
        },
        validation_predictions=later.select(
            *KEYS, *(pl.col(own).alias(column) for column, own in _NAMES.items())
        ),
        importance=importance,
        train_end=_last(used, DATE),
        label_end=_last(used, LABEL_END),
        validation_label_end=_last(split.train, LABEL_END),
        reference=(_days(used, DATE).min(), _last(used, DATE)),  # type: ignore[arg-type] # there are rows
        train_row_count=split.train.height,
        validation_row_count=split.validation.height,
    )


def _fit(module: MLModule, rows: pl.DataFrame, features: list[str]) -> None:
    module.fit(rows.select(features), rows[TARGET].cast(pl.Float64))


def _predict(module: MLModule, rows: pl.DataFrame, features: list[str]) -> pl.DataFrame:
    """Return the rows with what the model predicts of them; what is not finite is null."""
    return rows.hstack(ask(module, rows, features).rename(_NAMES))


def _has_value(column: pl.Series) -> bool:
    return bool(column.cast(pl.Float64).is_finite().any())


def _days(rows: pl.DataFrame, name: str) -> pl.Series:
    return take_days(rows[name], zone_of(rows[name]))


def _last(rows: pl.DataFrame, name: str) -> dt.date:
    last = _days(rows, name).max()
    assert isinstance(last, dt.date)
    return last
