"""Read what a training has stored: what its model knew, its validation predictions and the model itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pyarrow import fs  # type: ignore[import-untyped] # it ships no type information

from optaic.plugins import MLModule, PluginError, load
from worker.recipe import Component

FACTS = "training.json"  # what the version was trained on, and how far it knew
VALIDATION = "validation_predictions.parquet"  # date, entity, value, confidence of the model before the refit
IMPORTANCE = "importance.parquet"  # feature, mean, std
MODEL = "model.bin"  # what `MLModule.save` wrote
MLFLOW_MODEL = "mlflow_model"  # a folder: the model in MLflow's format, where the model has one


def read_facts(uri: str) -> Mapping[str, Any]:
    """Return the facts of a training; its output folder ends with a slash.

    Raises:
        PluginError: `ModelFilesNotFound`.
    """
    facts = json.loads(_read(uri, FACTS))
    if not isinstance(facts, dict):
        raise _unreadable(uri, FACTS, "it holds no object")
    return facts


def read_validation(uri: str) -> pl.DataFrame:
    """Return the validation predictions of a training; raises as `read_facts`."""
    return pl.read_parquet(_read(uri, VALIDATION))


def load_model(module: Component, uri: str) -> MLModule:
    """Return a trained model; raises as `read_facts`.

    Raises:
        PluginError: whatever the plugin raises.
    """
    model = load(module.code_ref, MLModule)(module.config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        path.write_bytes(_read(uri, MODEL))
        model.load(path)
    return model


def _read(uri: str, name: str) -> bytes:
    files, folder = fs.FileSystem.from_uri(uri)
    try:
        with files.open_input_stream(f"{folder.rstrip('/')}/{name}") as stream:
            content: bytes = stream.read()
    except OSError as error:
        raise _unreadable(uri, name, str(error)) from error
    return content


def _unreadable(uri: str, name: str, problem: str) -> PluginError:
    run_id = uri.rstrip("/").rpartition("/")[2]
    return PluginError(
        f"the file {name} of training run {run_id} cannot be read: {problem}; train the model anew, or promote a version whose "
        "files are there",
        type="ModelFilesNotFound",
    )
