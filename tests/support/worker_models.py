"""A model that is no estimator of scikit-learn; a worker under test imports it through `code_ref`."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from optaic.plugins import MLModule
from support.worker_plugins import wait_until


class MeanModel(MLModule):
    """Predicts the mean of the targets that it has learnt. With `gate` it waits while fitting until there is such a file."""

    def fit(self, features: pl.DataFrame, target: pl.Series) -> None:
        """Learn the mean."""
        del features
        if gate := self.config.get("gate"):
            Path(str(gate)).with_suffix(".entered").touch()
            wait_until(Path(str(gate)).exists)
        mean = target.mean()
        self._mean = mean if isinstance(mean, float) else 0.0

    def predict(self, features: pl.DataFrame) -> pl.DataFrame:
        """Return the mean for each row."""
        said = pl.Series("prediction", [self._mean] * features.height, pl.Float64)
        return pl.DataFrame(
            {"prediction": said, "confidence": pl.Series([None] * features.height, dtype=pl.Float64)}
        )
