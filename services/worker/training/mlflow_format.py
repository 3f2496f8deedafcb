"""Write a fitted model in MLflow's own format, with its signature and an example of its input; it calls no server."""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from optaic.plugins import MLModule
from worker.training.rows import Rows, keep_labelled

_EXAMPLES = 5  # rows of the example of an input
_REQUIRED = ("scikit-learn", "numpy", "cloudpickle")


def save_for_mlflow(module: MLModule, rows: Rows, folder: Path) -> str:
    """Write the model to a new folder; return why there is none if MLflow has no flavour for it."""
    estimator: Any = module.estimator()
    if estimator is None:
        return (
            f"not in MLflow's format: {type(module).__name__} has no estimator of scikit-learn; MLflow gets the file that its "
            "method save wrote"
        )
    import mlflow.sklearn  # noqa: PLC0415 - it takes seconds where it is not preloaded
    from mlflow.models import infer_signature  # noqa: PLC0415 - the same

    logging.getLogger("mlflow.sklearn").setLevel(logging.ERROR)  # it warns of pickles, which this is
    example = _choose_example(module, rows)
    answer = "predict_proba" if module.task == "classification" else "predict"
    said = getattr(estimator, answer)(example.to_numpy())
    mlflow.sklearn.save_model(
        estimator,
        str(folder),
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_CLOUDPICKLE,
        signature=infer_signature(example, said),
        input_example=example,
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in _REQUIRED],
        pyfunc_predict_fn=answer,
    )
    return ""


def _choose_example(module: MLModule, rows: Rows) -> Any:
    """Return the last rows that the model learned from and can predict, as pandas has them."""
    features = keep_labelled(rows.table).select(pl.col(name).cast(pl.Float64) for name in rows.features)
    newest = features.tail(10_000)
    predicted = newest.filter(module.predict(newest)["prediction"].is_not_null())
    return predicted.tail(_EXAMPLES).to_pandas()
