"""Execute a monitoring: read the watched table, compare its windows, write the report."""

from __future__ import annotations

import hashlib
import json

from optaic.plugins import (
    SchemaMismatch,
    is_dated,
    take_days,
    zone_of,
)
from optaic.plugins.words import describe_columns, describe_type
from optaic.rules.columns import DATE, KEYS
from optaic.rules.monitoring import MOST_ALERTS
from optaic.run.v1 import run_pb2
from worker.builtin.digest import canonicalize, compute_digest
from worker.computing.inputs import has_later, make_store, open_input
from worker.computing.monitored_models import open_model
from worker.computing.output import Output, Progress
from worker.locations import write_table, write_text
from worker.monitoring import Findings, Subject, monitor
from worker.monitoring.files import COLUMNS, COLUMNS_FILE, REPORT, REPORT_FILE, SNAPSHOT, SNAPSHOT_FILE
from worker.recipe import MonitoringRecipe


def watch(recipe: MonitoringRecipe, outputs_uri: str, run_id: str, progress: Progress) -> Output:
    """Execute the recipe of a monitoring; its output is the folder of its report.

    Raises:
        MissingInput: a model has no prediction yet.
        NoDataInRange: there are too few sessions.
        SchemaMismatch: the watched table has no dates, or nothing to compare.
    """
    progress(0.05, "reading")
    subject = _open_dataset(recipe) if recipe.model is None else open_model(recipe, recipe.model)
    progress(0.3, "comparing the windows")
    found = monitor(subject, recipe.settings)
    progress(0.5, "making the report")
    artifacts, notes = _write_report(recipe, found, outputs_uri, run_id)
    artifacts[COLUMNS] = f"{outputs_uri}{COLUMNS_FILE}"
    write_table(artifacts[COLUMNS], found.columns)
    last = str(found.last_day)
    share = found.metrics["drift_share"]
    return Output(
        uri=outputs_uri,
        physical_version=run_id,
        digest=_digest(found),
        last_data_date=last,
        metrics={**found.metrics, **notes, **_name_revision(recipe), "alerts": len(found.alerts)},
        artifacts=artifacts,
        result=run_pb2.MonitoringResult(
            drift_share=share if isinstance(share, float) else 0.0,
            alert_count=len(found.alerts),
            report_uri=artifacts.get(REPORT, ""),
            alerts=[run_pb2.MonitoringAlert(**alert._asdict()) for alert in found.alerts[:MOST_ALERTS]],
        ),
        is_partial_range=has_later(recipe.inputs, recipe.data_date),
    )


def _name_revision(recipe: MonitoringRecipe) -> dict[str, object]:
    """Name the revision whose features are compared, where it is not the run's."""
    revision = recipe.revision if recipe.model is None else recipe.model.configuration.revision
    return {"features_of_revision": revision} if revision != recipe.revision else {}


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
    artifacts = {REPORT: f"{outputs_uri}{REPORT_FILE}", SNAPSHOT: f"{outputs_uri}{SNAPSHOT_FILE}"}
    write_text(artifacts[REPORT], report.html)
    write_text(artifacts[SNAPSHOT], report.snapshot)
    return artifacts, dict(report.notes)


def _digest(found: Findings) -> str:
    """Return a digest of everything that was measured, so that the same once more moves nothing."""
    columns = compute_digest(canonicalize(found.columns, ["column"]))
    text = json.dumps({"columns": columns, "metrics": found.metrics}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
