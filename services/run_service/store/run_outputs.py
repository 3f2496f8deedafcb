"""Read what the runs of an instance keep of their output folders; nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from optaic.common.v1 import flow_pb2
from optaic.rules.locations import is_inside, outputs_folder
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.statuses import RunStatus
from run_service.store.tables import runs
from servicekit.database import Connection
from servicekit.enums import enum_number

_KEEPS_ARTIFACTS = runs.c.status.in_((RunStatus.FAILED.value, RunStatus.CANCELLED.value))
_SELECT = sa.select(
    runs.c.run_id,
    runs.c.flow_kind,
    runs.c.status,
    sa.case((_KEEPS_ARTIFACTS, runs.c.artifacts)).label("artifacts"),
    sa.case((_KEEPS_ARTIFACTS, runs.c.error["trace_uri"].astext)).label("trace_uri"),
).order_by(runs.c.run_id)


async def list_run_outputs(
    connection: Connection, tenant_id: str, instance_id: str, *, after: str, limit: int
) -> list[run_service_pb2.RunOutputs]:
    """Return what the runs of an instance keep, in the order of their ids, after one of them."""
    statement = _SELECT.where(runs.c.tenant_id == tenant_id, runs.c.instance_id == instance_id).limit(limit)
    if after:
        statement = statement.where(runs.c.run_id > after)
    return [
        run_service_pb2.RunOutputs(
            run_id=row.run_id,
            flow_kind=enum_number(flow_pb2.FlowKind, row.flow_kind),
            status=enum_number(run_pb2.RunStatus, row.status),
            paths=_list_paths(
                [*(row.artifacts or {}).values(), row.trace_uri or ""],
                outputs_folder(tenant_id, instance_id, row.flow_kind, row.run_id),
            ),
        )
        for row in await connection.execute(statement)
    ]


def _list_paths(uris: Iterable[str], folder: str) -> list[str]:
    """Return where in its folder a run has what it wrote, whatever root that was below then; "" is all of the folder."""
    inside = (uri for uri in uris if is_inside(uri, folder))
    return sorted({uri.rpartition(f"/{folder}")[2].strip("/") for uri in inside})
