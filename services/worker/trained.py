"""The names of the files that a trained version consists of, below its run's output folder."""

from __future__ import annotations

FACTS = "training.json"  # what the version was trained on, and how far it knew
VALIDATION = "validation_predictions.parquet"  # date, entity, value, confidence of the model before the refit
IMPORTANCE = "importance.parquet"  # feature, mean, std
MODEL = "model.bin"  # what `MLModule.save` wrote
MLFLOW_MODEL = "mlflow_model"  # a folder: the model in MLflow's format, where the model has one
