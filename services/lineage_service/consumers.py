"""What arrives from the streams: each batch of one tenant goes to one use case, in the consumer's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from lineage_service import events
from lineage_service.use_cases.events import Services, apply_run_facts, apply_snapshots
from servicekit.consumer import Received

INSTANCE_STREAM = "INSTANCE_EVENTS"
INSTANCE_SUBJECTS = ("optaic.*.instance.v1.>",)
RUN_STREAM = "RUN_EVENTS"
RUN_SUBJECTS = tuple(
    f"optaic.*.run.v1.{participle}.*"
    for participle in ("submitted", "started", "completed", "failed", "cancelled")
)


class Events:
    """The `apply` functions of the two consumers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def apply_instance_events(
        self, connection: AsyncConnection, tenant_id: str, batch: Sequence[Received]
    ) -> None:
        """Apply InstanceCreated, Updated, Activated, DeletionRequested and Deleted."""
        found = [events.snapshot_of_event(item.message, item.event.event_id) for item in batch]
        snapshots = [snapshot for snapshot in found if snapshot is not None]
        if snapshots:
            await apply_snapshots(self._services, connection, tenant_id, snapshots)

    async def apply_run_events(
        self, connection: AsyncConnection, tenant_id: str, batch: Sequence[Received]
    ) -> None:
        """Apply RunSubmitted, Started, Completed, Failed and Cancelled."""
        found = [events.run_fact_of_event(item.message, item.event.event_id) for item in batch]
        facts = [fact for fact in found if fact is not None]
        if facts:
            await apply_run_facts(self._services, connection, tenant_id, facts)
