"""Execute a monitoring: read the watched table, compare its windows, write the report."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from optaic.plugins import (
    InputTable,
    MissingInput,
    MLModule,
    SchemaMismatch,
    is_dated,
    load,
    take_days,
    zone_of,
)
from optaic.plugins.words import describe_columns, describe_type
from optaic.rules.columns import DATE, ENTITY, KEYS, VALUE
from optaic.rules.monitoring import MOST_ALERTS
from optaic.rules.roles import TARGET
from optaic.run.v1 import run_pb2
from worker.builtin.digest import canonicalize, compute_digest
from worker.builtin.features import build_features, build_target, read_features
from worker.computing.inputs import has_later, make_store, open_input, open_inputs
from worker.computing.output import Output, Progress
from worker.locations import read_text, write_table, write_text
from worker.monitoring import Findings, Labels, Subject, monitor
from worker.monitoring.windows import Training
from worker.recipe import MonitoredModel, MonitoringRecipe

_PREDICTION = "prediction"


def watch(recipe: MonitoringRecipe, outputs_uri: str, run_id: str, progress: Progress) -> Output:
    """Execute the recipe of a monitoring; its output is the folder of its report.

    Raises:
        MissingInput: there is no prediction yet.
        NoDataInRange: there are too few sessions.
        SchemaMismatch: the watched table has no dates, or nothing to compare.
    """
    progress(0.05, "reading")
    subject = _open_dataset(recipe) if recipe.model is None else _open_model(recipe, recipe.model)
    progress(0.3, "comparing the windows")
    found = monitor(subject, recipe.settings)
    progress(0.5, "making the report")
    artifacts, notes = _write_report(recipe, found, outputs_uri, run_id)
    artifacts["column_metrics"] = f"{outputs_uri}column_metrics.parquet"
    write_table(artifacts["column_metrics"], found.columns)
    last = str(found.last_day)
    share = found.metrics["drift_share"]
    return Output(
        uri=outputs_uri,
        physical_version=run_id,
        digest=_digest(found),
        last_data_date=last,
        metrics={**found.metrics, **notes, "alerts": len(found.alerts)},
        artifacts=artifacts,
        result=run_pb2.MonitoringResult(
            drift_share=share if isinstance(share, float) else 0.0,
            alert_count=len(found.alerts),
            report_uri=artifacts.get("report", ""),
            alerts=[run_pb2.MonitoringAlert(**alert._asdict()) for alert in found.alerts[:MOST_ALERTS]],
        ),
        is_partial_range=has_later(recipe.inputs, recipe.data_date),
    )


def _open_dataset(recipe: MonitoringRecipe) -> Subject:
    watched = recipe.watched
    table = open_input(watched, recipe.data_date).frame
    if DATE not in table.columns or not is_dated(table.schema[DATE]):
        problem = (
            f"its column {DATE!r} contains {describe_type(table.schema[DATE])}"
            if DATE in table.columns
            else f"it has {describe_columns(table.columns)}"
        )
        raise SchemaMismatch(
            f"{watched.name}: monitoring compares sessions, which are the dates of a column {DATE!r}, but {problem}; give the "
            "dataset such a column, or set monitoring_enabled to false"
        )
    keys = make_store(watched.data.store, watched.data.timezone).key_columns()
    days = take_days(table[DATE], zone_of(table[DATE], watched.data.timezone))
    return Subject(table, days, tuple(dict.fromkeys((*keys, *KEYS))))


def _open_model(recipe: MonitoringRecipe, model: MonitoredModel) -> Subject:
    predictions = open_input(recipe.watched, recipe.data_date).frame.select(*KEYS, VALUE)
    if predictions.is_empty():
        until = f" up to {recipe.data_date}" if recipe.data_date else ""
        raise MissingInput(f"there is no prediction{until}; run the flow inference of the model first")
    tables = [table for given in open_inputs(recipe.others, recipe.data_date).values() for table in given]
    features = _build(model, [table for table in tables if table.role != TARGET])
    module = load(model.module.code_ref, MLModule)(model.module.config)
    labels = build_target(model.module.config, tables, model.macros)
    name = _PREDICTION
    while name in features.columns:
        name = f"{name}_"
    kind = features.schema[DATE]
    said = predictions.with_columns(pl.col(DATE).cast(kind), pl.col(ENTITY).cast(pl.String))
    # What the model has not been asked about yet is not judged.
    asked = features.filter(pl.col(DATE) <= said[DATE].max())
    table = asked.join(said.rename({VALUE: name}), on=KEYS, how="full", coalesce=True).sort(KEYS)
    classify = module.classify if module.task == "classification" else None
    return Subject(
        table,
        take_days(table[DATE], zone_of(table[DATE])),
        KEYS,
        _read_training(model.training_uri),
        Labels(labels.with_columns(pl.col(DATE).cast(kind)), said, classify),
    )


def _build(model: MonitoredModel, tables: list[InputTable]) -> pl.DataFrame:
    return build_features(read_features(model.module.config), tables, model.macros)


def _read_training(uri: str) -> Training | None:
    """Return the training period of a trained version; None where it does not say."""
    if not uri:
        return None
    try:
        period: Mapping[str, Any] = json.loads(read_text(f"{uri}training.json"))["reference"]
        return dt.date.fromisoformat(period["start"]), dt.date.fromisoformat(period["end"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_report(
    recipe: MonitoringRecipe, found: Findings, outputs_uri: str, run_id: str
) -> tuple[dict[str, str], dict[str, object]]:
    """Write the report for readers and the snapshot for Evidently; return the artifacts and what they leave out."""
    from worker.monitoring.report import make_report  # noqa: PLC0415 - Evidently is imported where it is used only

    metadata = {"run_id": run_id, "instance": recipe.watched.name}
    report = make_report(
        found.reference, found.current, found.columns, recipe.settings, metadata, found.last_day
    )
    if report is None:
        return {}, {"report": "not made: no column can be compared"}
    artifacts = {"report": f"{outputs_uri}report.html", "snapshot": f"{outputs_uri}snapshot.json"}
    write_text(artifacts["report"], report.html)
    write_text(artifacts["snapshot"], report.snapshot)
    return artifacts, dict(report.notes)


def _digest(found: Findings) -> str:
    """Return a digest of everything that was measured, so that the same once more moves nothing."""
    columns = compute_digest(canonicalize(found.columns, ["column"]))
    text = json.dumps({"columns": columns, "metrics": found.metrics}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
