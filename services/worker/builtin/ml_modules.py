"""Define models on scikit-learn: its estimators after its own pipeline of transforms; nothing is stored here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import polars as pl
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from optaic.plugins import MLModule, NoDataInRange, NotFitted, SchemaMismatch
from worker.builtin.features import Transform, read_features
from worker.builtin.parameters import read_number, read_whole

_FEWEST = 2  # rows: one has no spread


class Winsorizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """A transform that clips to the quantiles of the data it was fitted on; missing values stay missing."""

    def __init__(self, share: float = 0.01) -> None:
        self.share = share

    def fit(self, values: Any, target: Any = None) -> Winsorizer:
        """Learn the quantiles of each column."""
        del target
        self.n_features_in_ = values.shape[1]
        self.low_, self.high_ = np.nanquantile(values, [self.share, 1.0 - self.share], axis=0)
        return self

    def transform(self, values: Any) -> Any:
        """Clip the values to the learnt quantiles."""
        return np.clip(values, self.low_, self.high_)


class ScikitModule(MLModule):
    """The common part of the models: the features' transforms, the choice of complete rows, frames in and out."""

    takes_nulls: ClassVar[bool] = False  # whether absent features are something that it can learn from

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        super().__init__(config)
        self._features = read_features(self.config)
        self._pipeline = Pipeline([("features", self._transforms()), ("model", self._estimator())])
        self._is_fitted = False

    @abstractmethod
    def _estimator(self) -> Any:
        """Return the configured estimator."""

    @abstractmethod
    def _predict(self, values: Any) -> tuple[Any, Any]:
        """Compute predictions and confidences; the latter are None if the model has none."""

    def _labels(self, target: pl.Series) -> Any:
        """Return the target in the form that the estimator learns."""
        return target.to_numpy()

    def fit(self, features: pl.DataFrame, target: pl.Series) -> None:
        """Train on the rows that have a target and every feature; some models allow missing features."""
        values = self._read(features)
        wanted = target.cast(pl.Float64)
        usable = self._usable(values) & wanted.is_finite().fill_null(value=False).to_numpy()
        if usable.sum() < _FEWEST:
            raise NoDataInRange(
                f"only {usable.sum()} of {len(usable)} rows have a target and all features, and {_FEWEST} are needed; "
                "choose a longer range, or remove features that are often missing"
            )
        self._learn(values[usable], self._labels(wanted.filter(pl.Series(usable))))
        self._is_fitted = True

    def _learn(self, values: Any, labels: Any) -> None:
        # A column without any value teaches nothing, as a constant one does; scikit-learn refuses the former.
        self._pipeline.fit(np.where(np.isnan(values).all(axis=0), 0.0, values), labels)

    def estimator(self) -> object | None:
        """Return the transforms and the estimator as one pipeline."""
        return self._pipeline if self._is_fitted else None

    def predict(self, features: pl.DataFrame) -> pl.DataFrame:
        """Compute the columns `prediction` and `confidence`."""
        if not self._is_fitted:
            raise NotFitted("the model has not been trained; run its flow training first")
        values = self._read(features)
        usable = self._usable(values)
        said: list[Any] = [np.full(len(usable), np.nan), np.full(len(usable), np.nan)]
        if usable.any():
            for column, found in zip(said, self._predict(values[usable]), strict=True):
                if found is not None:
                    column[usable] = found
        return pl.DataFrame({"prediction": said[0], "confidence": said[1]}).fill_nan(None)

    def _transforms(self) -> Any:
        steps = [
            (feature.name, make_pipeline(*map(_make_step, feature.transforms) or ["passthrough"]), [position])
            if feature.transforms
            else (feature.name, "passthrough", [position])
            for position, feature in enumerate(self._features)
        ]
        return ColumnTransformer(steps)

    def _read(self, features: pl.DataFrame) -> Any:
        names = [feature.name for feature in self._features]
        if missing := [name for name in names if name not in features.columns]:
            raise SchemaMismatch(
                f"no feature {', '.join(missing)} (the features are {', '.join(features.columns)})"
            )
        values = features.select(pl.col(name).cast(pl.Float64) for name in names).to_numpy()
        return np.where(np.isfinite(values), values, np.nan)

    def _usable(self, values: Any) -> Any:
        if self.takes_nulls:
            return np.ones(len(values), dtype=bool)
        filled = [
            any(step.name == "fill_median" for step in feature.transforms) for feature in self._features
        ]
        return (np.isfinite(values) | np.array(filled)).all(axis=1)


class RidgeModule(ScikitModule):
    """Linear regression with an L2 penalty. Config: `alpha`."""

    def _estimator(self) -> Any:
        return Ridge(alpha=read_number(self.config, "alpha", 1.0, minimum=0.0))

    def _predict(self, values: Any) -> tuple[Any, Any]:
        return self._pipeline.predict(values), None


class HistGradientBoostingModule(ScikitModule):
    """A model of gradient boosted trees over histograms; missing features form a branch of their own."""

    takes_nulls = True

    def _estimator(self) -> Any:
        config = self.config
        return HistGradientBoostingRegressor(
            learning_rate=read_number(config, "learning_rate", 0.1, minimum=1e-6, maximum=1.0),
            max_iter=read_whole(config, "max_iter", 100, minimum=1, maximum=10_000),
            max_leaf_nodes=read_whole(config, "max_leaf_nodes", 31, minimum=2, maximum=10_000),
            min_samples_leaf=read_whole(config, "min_samples_leaf", 20, minimum=1, maximum=1_000_000),
            l2_regularization=read_number(config, "l2_regularization", 0.0, minimum=0.0),
            early_stopping=False,  # it would hold back rows at random, those of tomorrow too
            random_state=read_whole(config, "seed", 0, minimum=0, maximum=2**31 - 1),
        )

    def _predict(self, values: Any) -> tuple[Any, Any]:
        return self._pipeline.predict(values), None


class LogisticModule(ScikitModule):
    """A model of whether the target will exceed `threshold`: the probability, and how certain it is."""

    task = "classification"

    def _estimator(self) -> Any:
        config = self.config
        return LogisticRegression(
            C=read_number(config, "c", 1.0, minimum=1e-9),
            max_iter=read_whole(config, "max_iter", 1_000, minimum=1, maximum=100_000),
            class_weight="balanced" if config.get("balanced") is True else None,
        )

    def classify(self, target: pl.Series) -> pl.Series:
        """Return which targets lie above the threshold."""
        return target > read_number(self.config, "threshold", 0.0)

    def _labels(self, target: pl.Series) -> Any:
        return self.classify(target).to_numpy()

    def _learn(self, values: Any, labels: Any) -> None:
        if labels.all() or not labels.any():
            raise NoDataInRange(
                "the target is on one side of the threshold in every row; change the threshold"
            )
        super()._learn(values, labels)

    def _predict(self, values: Any) -> tuple[Any, Any]:
        above = self._pipeline.predict_proba(values)[:, 1]
        return above, np.maximum(above, 1.0 - above)


def _make_step(transform: Transform) -> Any:
    if transform.name == "standardize":
        return StandardScaler()
    if transform.name == "winsorize":
        return Winsorizer(transform.share)
    return SimpleImputer(strategy="median", keep_empty_features=True)
