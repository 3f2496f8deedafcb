"""Execute a training: read features and target, fit and measure, write the version that inference reads."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import structlog

from optaic import storage
from optaic.plugins import MLModule, load
from optaic.rules.columns import KEYS
from optaic.rules.roles import FEATURES, TARGET
from optaic.run.v1 import run_pb2
from worker import trained
from worker.builtin.digest import canonicalize, compute_digest
from worker.builtin.features import read_horizon
from worker.code_identity import identify
from worker.computing.inputs import has_later, load_operators, open_inputs
from worker.computing.output import Output, Progress, scale
from worker.locations import FlowLocation, copy_folder, write_table, write_text
from worker.recipe import TrainingRecipe
from worker.training import Rows, Trained, TrainingSettings, build_rows, keep_labelled, train
from worker.training.mlflow_format import save_for_mlflow

_LIBRARIES = ("numpy", "polars", "scikit-learn", "scipy")  # whose releases may change what is learnt
_log = structlog.get_logger(__name__)


def fit(recipe: TrainingRecipe, location: FlowLocation, run_id: str, progress: Progress) -> Output:
    """Execute the recipe of a training; its output is the folder of its artifacts."""
    code, config = load(recipe.module.code_ref, MLModule), recipe.module.config
    settings, horizon = TrainingSettings.read(config), read_horizon(config)
    progress(0.05, "building features and target")
    tables = open_inputs(recipe.inputs, recipe.data_date)
    features = tables.get(FEATURES, ())
    operators = load_operators(recipe.operators)
    rows = build_rows(config, features, tables.get(TARGET, ()) or features, recipe.macros, operators)
    found = train(lambda: code(config), rows, settings, horizon, scale(progress, 0.1, 0.85))
    progress(0.87, "writing the model")
    place = location.outputs_uri(run_id)
    note = _write(found, rows, place, _describe(found, rows, horizon, recipe, run_id))
    train_end = found.train_end.isoformat()
    return Output(
        uri=place,
        physical_version=run_id,
        digest=_digest(recipe, rows, found),
        last_data_date=train_end,
        metrics={
            **found.metrics,
            "train_end": train_end,
            "label_end": found.label_end.isoformat(),
            "warnings": list(_warn(found, note)),
        },
        artifacts={
            "model": f"{place}{trained.MODEL}",
            **({} if note else {"mlflow_model": f"{place}{trained.MLFLOW_MODEL}"}),
            "validation_predictions": f"{place}{trained.VALIDATION}",
            "importance": f"{place}{trained.IMPORTANCE}",
            "training": f"{place}{trained.FACTS}",
        },
        result=run_pb2.TrainingResult(
            model_uri=f"{place}{trained.MODEL if note else trained.MLFLOW_MODEL}",
            train_row_count=found.train_row_count,
            validation_row_count=found.validation_row_count,
            train_end=train_end,
            label_end=found.label_end.isoformat(),
        ),
        is_partial_range=has_later(recipe.inputs, recipe.data_date),
    )


def _warn(found: Trained, note: str) -> Iterator[str]:
    """Yield what to know before one believes the figures."""
    if note:
        yield note
    if absent := found.features_without_values:
        yield f"features without any value, from which nothing was learnt: {', '.join(absent)}"


def _describe(
    found: Trained, rows: Rows, horizon: int, recipe: TrainingRecipe, run_id: str
) -> dict[str, object]:
    start, end = (day.isoformat() for day in found.reference)
    return {
        "train_end": found.train_end.isoformat(),
        "label_end": found.label_end.isoformat(),
        "validation_label_end": found.validation_label_end.isoformat(),
        "horizon": horizon,
        "instance_revision": recipe.instance_revision,
        "run_id": run_id,
        "features": rows.features,
        "reference": {"start": start, "end": end},
        "task": found.module.task,
    }


def _write(found: Trained, rows: Rows, place: str, facts: dict[str, object]) -> str:
    """Write a trained version; return why it is not in MLflow's format, or nothing."""
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / trained.MODEL
        found.module.save(model)
        storage.write(f"{place}{trained.MODEL}", model.read_bytes())
        folder = Path(temporary) / trained.MLFLOW_MODEL
        try:
            note = save_for_mlflow(found.module, rows, folder)
        except Exception as error:  # noqa: BLE001 - whatever the format's library says, the model is there
            _log.warning("not written in MLflow's format", error=repr(error))
            note = f"not in MLflow's format: {error}; the file {trained.MODEL} has the model"
        if not note:
            copy_folder(folder, f"{place}{trained.MLFLOW_MODEL}")
    write_table(f"{place}{trained.VALIDATION}", found.validation_predictions)
    write_table(f"{place}{trained.IMPORTANCE}", found.importance)
    write_text(f"{place}{trained.FACTS}", json.dumps(facts, indent=1))
    return note


def _digest(recipe: TrainingRecipe, rows: Rows, found: Trained) -> str:
    """Return the digest of everything that the model follows from: the same training again has the same digest."""
    used = canonicalize(keep_labelled(rows.table), KEYS)
    plugins = [recipe.module, *(recipe.operators[name] for name in sorted(recipe.operators))]
    code = [identify(plugin.code_ref) for plugin in plugins]
    packages = sorted({*_LIBRARIES, *(each.distribution for each in code if not each.is_builtin)} - {""})
    content = {
        "rows": compute_digest(used),
        "ends": [found.train_end.isoformat(), found.label_end.isoformat()],
        "features": rows.features,
        "config": recipe.module.config,  # with the seed
        "code": [[plugin.code_ref, each.hash] for plugin, each in zip(plugins, code, strict=True)],
        "libraries": {name: metadata.version(name) for name in packages},
        "python": platform.python_version(),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
