"""Read the completed trainings of a model; nothing is changed here."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from optaic.rules.locations import relocate
from optaic.run.v1 import run_report_service_pb2
from run_service.domain.statuses import RunStatus
from run_service.store.places import relocate_manifest
from run_service.store.tables import extensions, runs
from servicekit.database import Connection
from servicekit.ids import is_id
from servicekit.moved_roots import roots_of

_TRAINING = "training"
_TABLE = extensions[_TRAINING]
_OUTPUT = runs.c.output_version
_SELECT = (
    sa.select(
        runs.c.run_id,
        runs.c.run_number,
        runs.c.instance_revision,
        sa.func.coalesce(_OUTPUT["uri"].astext, "").label("uri"),
        sa.func.coalesce(_OUTPUT["digest"].astext, "").label("digest"),
        sa.func.coalesce(_OUTPUT["last_data_date"].astext, "").label("train_end"),
        sa.func.coalesce(_TABLE.c.mlflow_run_id, "").label("mlflow_run_id"),
        sa.func.coalesce(_TABLE.c.label_end, "").label("label_end"),
        runs.c.artifact_manifest,
        roots_of(runs.c.tenant_id).label("moved_roots"),
    )
    .join(_TABLE, sa.and_(_TABLE.c.tenant_id == runs.c.tenant_id, _TABLE.c.run_id == runs.c.run_id))
    .where(runs.c.flow_kind == _TRAINING, runs.c.status == RunStatus.COMPLETED.value)
    .order_by(runs.c.run_number.desc())
)


async def list_trained_versions(
    connection: Connection, tenant_id: str, instance_id: str, *, before: int | None, limit: int
) -> list[run_report_service_pb2.TrainedVersion]:
    """Return what a model's completed trainings made, newest first, before a run number."""
    statement = _SELECT.where(runs.c.tenant_id == tenant_id, runs.c.instance_id == instance_id).limit(limit)
    if before is not None:
        statement = statement.where(runs.c.run_number < before)
    rows = (await connection.execute(statement)).mappings()
    return [_version_of(tenant_id, dict(row)) for row in rows]


def _version_of(tenant_id: str, columns: dict[str, Any]) -> run_report_service_pb2.TrainedVersion:
    roots = columns.pop("moved_roots") or {}
    version = run_report_service_pb2.TrainedVersion(**columns)
    version.uri = relocate(version.uri, tenant_id, roots)
    relocate_manifest(version.artifact_manifest, tenant_id, roots)
    return version


async def get_model_run(connection: Connection, tenant_id: str, inference_run_id: str) -> str:
    """Return the training run whose model an inference read; empty if that is not known."""
    if not is_id(inference_run_id):
        return ""
    table = extensions["inference"]
    statement = sa.select(sa.func.coalesce(table.c.model_run_id, "")).where(
        table.c.tenant_id == tenant_id, table.c.run_id == inference_run_id
    )
    return str((await connection.execute(statement)).scalar_one_or_none() or "")
