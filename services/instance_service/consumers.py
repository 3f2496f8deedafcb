"""Pass each batch of events of one tenant to its use case, in the transaction of the consumer."""

from __future__ import annotations

from collections.abc import Sequence

from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.instances.dates import note_missing_dates
from instance_service.use_cases.instances.deletion import finish_in_lineage
from instance_service.use_cases.promotions.outputs import record_outputs
from optaic.lineage.v1.lineage_events_pb2 import LineageCleared
from optaic.rules.events import LINEAGE_EVENTS, RUN_EVENTS, RUN_SUBJECTS
from optaic.run.v1.run_events_pb2 import RunCompleted
from servicekit.broker import Broker
from servicekit.consumer import Consumer, Received
from servicekit.database import Connection

LINEAGE_CONSUMER = "instance-service"
LINEAGE_SUBJECTS = ("optaic.*.lineage.v1.cleared.*",)
RUN_CONSUMER = "instance-run-events"


def build_consumers(deps: Dependencies, broker: Broker) -> list[Consumer]:
    """Build the consumers of this service."""

    async def apply_lineage_events(connection: Connection, tenant_id: str, batch: Sequence[Received]) -> None:
        """Continue the deletions of instances that lineage-service has removed from its graph."""
        cleared = [
            received.message.instance_id for received in batch if isinstance(received.message, LineageCleared)
        ]
        await finish_in_lineage(deps, connection, tenant_id, cleared)

    async def apply_run_events(connection: Connection, tenant_id: str, batch: Sequence[Received]) -> None:
        """Store the profiles of the newest outputs."""
        completed = [received.message.run for received in batch if isinstance(received.message, RunCompleted)]
        await record_outputs(connection, tenant_id, completed)
        await note_missing_dates(deps, connection, tenant_id, completed)

    return [
        Consumer(
            deps.database,
            broker,
            name=LINEAGE_CONSUMER,
            stream=LINEAGE_EVENTS,
            filter_subjects=LINEAGE_SUBJECTS,
            apply=apply_lineage_events,
        ),
        Consumer(
            deps.database,
            broker,
            name=RUN_CONSUMER,
            stream=RUN_EVENTS,
            filter_subjects=RUN_SUBJECTS,
            apply=apply_run_events,
        ),
    ]
