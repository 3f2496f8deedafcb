"""Add what lineage-service reports about a run's consequences to its timeline."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from optaic.lineage.v1 import lineage_events_pb2
from run_service.events import activity_row
from run_service.store import activities
from run_service.store import runs as run_store
from run_service.use_cases.dependencies import Dependencies
from servicekit.consumer import Received
from servicekit.database import Connection
from servicekit.ids import is_id


async def add_affected_downstream(
    deps: Dependencies, connection: Connection, tenant_id: str, batch: Sequence[Received]
) -> None:
    """Add to a run's timeline how many downstream flows it made not fresh, once for each change."""
    changes = [
        item.message
        for item in batch
        if isinstance(item.message, lineage_events_pb2.FlowStatusesChanged)
        and item.message.affected_downstream > 0
        and is_id(item.message.caused_by_run_id)
    ]
    if not changes:
        return
    run_ids = {change.caused_by_run_id for change in changes}
    kinds = {
        record.run.run_id: record.kind
        for record in await run_store.list_runs_by_id(connection, tenant_id, run_ids)
    }
    now = deps.clock.now()
    rows = {}
    for change in changes:
        run_id = change.caused_by_run_id
        if run_id in kinds:
            # All chunks of one change carry its revision: they give one activity.
            activity_id = str(uuid.uuid5(uuid.UUID(run_id), f"lineage/{change.revision}"))
            rows[activity_id] = activity_row(
                "affected_downstream",
                tenant_id,
                run_id,
                kinds[run_id],
                activity_id=activity_id,
                actor="lineage-service",
                now=now,
                message=f"{change.affected_downstream} downstream flows are no longer fresh",
                details={"affected_downstream": change.affected_downstream, "revision": change.revision},
            )
    await activities.insert_activities(connection, list(rows.values()))
