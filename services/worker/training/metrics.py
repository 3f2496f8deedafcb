"""Measure predictions against what came true; a figure that is not defined is None, never a failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from sklearn import metrics

from optaic.plugins import MLModule
from worker.statistics.hits import hit_rate
from worker.statistics.ic import daily_ic, summarize
from worker.training.rows import PREDICTION, TARGET

_HALF = 0.5  # a probability above it predicts the class
_FEWEST = 2  # rows of a determination
Figures = Mapping[str, float | None]


def keep_predicted(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that have a finite prediction."""
    return rows.filter(pl.col(PREDICTION).is_finite().fill_null(value=False))


def measure(module: MLModule, rows: pl.DataFrame) -> Figures:
    """Return the figures of a table `date, entity, _target, _prediction`; rows without a prediction do not count."""
    known = keep_predicted(rows)
    if module.task == "classification":
        return _measure_classification(module.classify(known[TARGET].cast(pl.Float64)), known[PREDICTION])
    return _measure_regression(known)


def _measure_regression(rows: pl.DataFrame) -> Figures:
    truth, said = (rows[name].cast(pl.Float64).to_numpy() for name in (TARGET, PREDICTION))
    ic = summarize(daily_ic(rows, PREDICTION, TARGET)["ic"])
    return {
        "rmse": float(metrics.root_mean_squared_error(truth, said)) if truth.size else None,
        "mae": float(metrics.mean_absolute_error(truth, said)) if truth.size else None,
        "r2": determination(truth, said),
        "ic": ic.mean,
        "ic_information_ratio": ic.information_ratio,
        "hit_rate": hit_rate(rows, PREDICTION, TARGET),
    }


def determination(truth: np.ndarray, said: np.ndarray) -> float | None:
    """Return R2; None where the truth is constant."""
    is_defined = truth.size >= _FEWEST and truth.min() < truth.max()
    return float(metrics.r2_score(truth, said)) if is_defined else None


def _measure_classification(truth: pl.Series, probability: pl.Series) -> Figures:
    is_one, said = truth.to_numpy().astype(bool), probability.to_numpy() > _HALF
    has_both = bool(is_one.any() and not is_one.all())

    def over(count: int, figure: Callable[..., float]) -> float | None:
        return float(figure(is_one, said)) if count else None

    found, real = int(said.sum()), int(is_one.sum())
    return {
        "accuracy": over(is_one.size, metrics.accuracy_score),
        "auc": float(metrics.roc_auc_score(is_one, probability.to_numpy())) if has_both else None,
        "precision": over(found, metrics.precision_score),
        "recall": over(real, metrics.recall_score),
        "f1": over(found + real, metrics.f1_score),
    }
