"""Measure how much worse a model predicts when one feature is shuffled."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from sklearn.base import BaseEstimator
from sklearn.inspection import permutation_importance

from optaic.plugins import MLModule
from worker.training.metrics import determination, keep_predicted
from worker.training.rows import TARGET

REPEATS = 5
MOST_ROWS = 50_000
_FEWEST = 2  # rows: one cannot be shuffled
_HALF = 0.5
_SCHEMA = {"feature": pl.String, "mean": pl.Float64, "std": pl.Float64}


class _Fitted(BaseEstimator):  # type: ignore[misc]  # untyped
    """A fitted model, as scikit-learn asks it."""

    def __init__(self, module: MLModule, features: list[str]) -> None:
        self.module = module
        self.features = features

    def fit(self, values: Any, target: Any = None) -> _Fitted:
        """Do nothing: it is fitted."""
        del values, target
        return self

    def score(self, values: Any, truth: Any) -> float:
        """Return R2, of a classification the accuracy."""
        table = pl.DataFrame(np.asarray(values), schema=self.features, orient="row").fill_nan(None)
        said = self.module.predict(table)["prediction"].cast(pl.Float64).to_numpy()
        if self.module.task == "classification":
            return float(np.mean((said > _HALF) == truth))
        found = determination(truth, said)
        return np.nan if found is None else found


def measure_importance(module: MLModule, rows: pl.DataFrame, features: list[str], seed: int) -> pl.DataFrame:
    """Return `feature, mean, std` of the loss of R2 (of a classification: of accuracy) in five shuffles of each feature.

    At most 50,000 rows are used, which the seed chooses; rows without a prediction are not. Null where it is not defined.
    """
    usable = keep_predicted(rows)
    if usable.height > MOST_ROWS:
        chosen = np.random.default_rng(seed).choice(usable.height, MOST_ROWS, replace=False)
        usable = usable[np.sort(chosen)]
    nothing = pl.DataFrame({"feature": features}).with_columns(
        pl.lit(None, pl.Float64).alias("mean"), pl.lit(None, pl.Float64).alias("std")
    )
    target = usable[TARGET].cast(pl.Float64)
    truth = (module.classify(target) if module.task == "classification" else target).to_numpy()
    if usable.height < _FEWEST or (module.task == "regression" and truth.min() == truth.max()):
        return nothing
    values = usable.select(pl.col(name).cast(pl.Float64) for name in features).to_numpy()
    values = np.where(np.isfinite(values), values, np.nan)  # scikit-learn takes no infinity
    found = permutation_importance(
        _Fitted(module, features), values, truth, n_repeats=REPEATS, random_state=seed, n_jobs=1
    )
    means, deviations = found["importances_mean"], found["importances_std"]
    table = pl.DataFrame({"feature": features, "mean": means, "std": deviations}, schema=_SCHEMA)
    return table.fill_nan(None)
