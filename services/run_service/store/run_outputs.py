"""Read what the runs of an instance keep of their output folders and of their flows' data; nothing is changed here."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from optaic.common.v1 import flow_pb2
from optaic.rules.locations import data_folder, is_inside, outputs_folder
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.kept_outputs import list_kept_paths
from run_service.domain.statuses import RunStatus
from run_service.store.tables import runs
from servicekit.database import Connection
from servicekit.enums import enum_number

_KEEPS_ARTIFACTS = runs.c.status.in_((RunStatus.FAILED.value, RunStatus.CANCELLED.value))
# A version that another system has is none of the flow's data.
_KEEPS_VERSION = sa.and_(runs.c.status == RunStatus.COMPLETED.value, runs.c.external_version == "")
_SELECT = sa.select(
    runs.c.run_id,
    runs.c.flow_kind,
    runs.c.status,
    sa.case((_KEEPS_ARTIFACTS, runs.c.artifacts)).label("artifacts"),
    sa.case((_KEEPS_ARTIFACTS, runs.c.error["trace_uri"].astext)).label("trace_uri"),
    sa.case((_KEEPS_VERSION, runs.c.output_version["uri"].astext)).label("version_uri"),
    sa.case((_KEEPS_VERSION, runs.c.output_version["physical_version"].astext)).label("version"),
).order_by(runs.c.run_id)


async def list_run_outputs(
    connection: Connection, tenant_id: str, instance_id: str, *, after: str, limit: int
) -> list[run_service_pb2.RunOutputs]:
    """Return what the runs of an instance keep, in the order of their ids, after one of them."""
    statement = _SELECT.where(runs.c.tenant_id == tenant_id, runs.c.instance_id == instance_id).limit(limit)
    if after:
        statement = statement.where(runs.c.run_id > after)
    return [_describe(tenant_id, instance_id, row) for row in await connection.execute(statement)]


def _describe(tenant_id: str, instance_id: str, row: Any) -> run_service_pb2.RunOutputs:
    flow = tenant_id, instance_id, row.flow_kind
    outputs = outputs_folder(*flow, row.run_id)
    is_own = is_inside(row.version_uri or "", outputs)
    return run_service_pb2.RunOutputs(
        run_id=row.run_id,
        flow_kind=enum_number(flow_pb2.FlowKind, row.flow_kind),
        status=enum_number(run_pb2.RunStatus, row.status),
        paths=list_kept_paths(
            [*(row.artifacts or {}).values(), row.trace_uri or ""], outputs, data_folder(*flow)
        ),
        physical_version="" if is_own else row.version or "",
    )
