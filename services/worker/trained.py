"""Read what a training has stored: what its model knew, its validation predictions and the model itself."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from optaic import storage
from optaic.plugins import MLModule, PluginError, load
from optaic.rules.artifacts import measure
from worker.recipe import Component, FileHash, TrainedFiles

FACTS = "training.json"  # what the version was trained on, and how far it knew
VALIDATION = "validation_predictions.parquet"  # date, entity, value, confidence of the model before the refit
IMPORTANCE = "importance.parquet"  # feature, mean, std
MODEL = "model.bin"  # what `MLModule.save` wrote
MLFLOW_MODEL = "mlflow_model"  # a folder: the model in MLflow's format, where the model has one


class ArtifactCorrupt(PluginError):  # noqa: N818 - a run shows this name as the type of its error
    """A file is not the one that the training wrote."""


def read_facts(files: TrainedFiles) -> Mapping[str, Any]:
    """Return the facts of a training.

    Raises:
        PluginError: `ModelFilesNotFound`.
        ArtifactCorrupt: the file is not the one that the training wrote.
    """
    facts = json.loads(_read(files, FACTS))
    if not isinstance(facts, dict):
        raise _unreadable(files.uri, FACTS, "it holds no object")
    return facts


def read_validation(files: TrainedFiles) -> pl.DataFrame:
    """Return the validation predictions of a training; raises as `read_facts`."""
    return pl.read_parquet(_read(files, VALIDATION))


def load_model(module: Component, files: TrainedFiles) -> MLModule:
    """Return a trained model; raises as `read_facts`.

    Raises:
        PluginError: whatever the plugin raises.
    """
    model = load(module.code_ref, MLModule)(module.config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        path.write_bytes(_read(files, MODEL))
        model.load(path)
    return model


def _read(files: TrainedFiles, name: str) -> bytes:
    try:
        content = storage.read(f"{files.uri.rstrip('/')}/{name}")
    except storage.StorageUnavailableError:
        raise
    except OSError as error:
        raise _unreadable(files.uri, name, str(error)) from error
    expected = files.hashes.get(name)
    if expected is not None and expected != FileHash(*measure(io.BytesIO(content))):
        raise ArtifactCorrupt(
            f"the file {name} of training run {_run_id(files.uri)} is not the one that the training wrote; train the model anew, or "
            "restore the file"
        )
    return content


def _run_id(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _unreadable(uri: str, name: str, problem: str) -> PluginError:
    return PluginError(
        f"the file {name} of training run {_run_id(uri)} cannot be read: {problem}; train the model anew, or promote a version whose "
        "files are there",
        type="ModelFilesNotFound",
    )
