"""Say what a run that has computed owes outside systems; it reads no file and calls nothing."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict

from optaic.rules.counterparts import counterpart_name
from optaic.run.v1 import run_pb2, run_report_service_pb2
from redaction import redact_value
from worker import trained
from worker.monitoring.files import SNAPSHOT, SNAPSHOT_FILE
from worker.recipe import MonitoringRecipe, Recipe, TrainingRecipe
from worker.telemetry.debts import Debt

MLFLOW, EVIDENTLY = "mlflow", "evidently"
_LONGEST_PARAM, _LONGEST_TAG = 6_000, 5_000  # characters that MLflow takes
_LONGEST_NAME = 250
_ODD = re.compile(r"[^A-Za-z0-9_\-. /]")  # what MLflow takes in no name
_MODEL = "model"  # the name of the model in MLflow, as its own clients call it
_MORE = {name: name for name in (trained.VALIDATION, trained.IMPORTANCE, trained.FACTS)}  # besides the model


def list_debts(
    tenant_id: str,
    run: run_pb2.Run,
    fencing_token: str,
    recipe: Recipe,
    answer: run_report_service_pb2.CompleteRunRequest,
    outputs_uri: str,
) -> list[Debt]:
    """Return what a run owes, with secrets hidden. Its files are below `outputs_uri`, whatever its process has said."""
    if isinstance(recipe, MonitoringRecipe) and SNAPSHOT in answer.artifacts:
        files = {SNAPSHOT: f"{outputs_uri}{SNAPSHOT_FILE}"}
        return [Debt(tenant_id, run.instance_id, run.run_id, EVIDENTLY, fencing_token, {}, files)]
    if not isinstance(recipe, TrainingRecipe):
        return []
    is_in_format = trained.MLFLOW_MODEL in answer.artifacts
    model = {_MODEL: trained.MLFLOW_MODEL} if is_in_format else {f"{_MODEL}/{trained.MODEL}": trained.MODEL}
    files = {name: f"{outputs_uri}{place}" for name, place in {**model, **_MORE}.items()}
    payload = {
        "experiment": counterpart_name(tenant_id, run.instance_id),
        "run_name": f"training {run.run_number}",
        "start_time": run.start_time.ToMilliseconds() or int(time.time() * 1000),
        "end_time": int(time.time() * 1000),
        "params": dict(_list_params(recipe)),
        "metrics": dict(_list_metrics(MessageToDict(answer.metrics))),
        "tags": {**_describe(run, recipe, answer), "optaic.outputs_uri": outputs_uri},
    }
    return [Debt(tenant_id, run.instance_id, run.run_id, MLFLOW, fencing_token, redact_value(payload), files)]


def _list_params(recipe: TrainingRecipe) -> Iterator[tuple[str, str]]:
    for name, value in sorted(recipe.module.config.items()):
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        yield _name(name), _cut(text, _LONGEST_PARAM)
    if recipe.data_date is not None:
        yield "data_date", recipe.data_date.isoformat()


def _list_metrics(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _list_metrics(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield _name(f"{prefix}{name}"), float(value)


def _describe(
    run: run_pb2.Run, recipe: TrainingRecipe, answer: run_report_service_pb2.CompleteRunRequest
) -> dict[str, str]:
    read = [
        f"{each.instance_name or each.instance_id} {each.version} ({each.role})"
        for each in run.input_versions
    ]
    tags = {
        "optaic.instance_id": run.instance_id,
        "optaic.instance_revision": str(run.instance_revision),
        "optaic.definition": f"{recipe.module.definition_name} {recipe.module.definition_version}",
        "optaic.inputs": ", ".join(read),
        "optaic.digest": answer.output_version.digest,
        "optaic.train_end": answer.training.train_end,
        "optaic.label_end": answer.training.label_end,
    }
    return {name: _cut(value, _LONGEST_TAG) for name, value in tags.items() if value.strip()}


def _name(text: str) -> str:
    return _ODD.sub("_", text)[:_LONGEST_NAME]


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
