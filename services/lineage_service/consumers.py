"""Pass each batch of events of one tenant to its use case, in the transaction of the consumer."""

from __future__ import annotations

from collections.abc import Sequence

from lineage_service import conversion
from lineage_service.use_cases.admission import RUN_CONSUMER
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.facts import apply_probes, apply_run_facts, apply_snapshots
from optaic.rules.events import INSTANCE_EVENTS, ROLE_BINDING_SUBJECTS, RUN_EVENTS, RUN_SUBJECTS
from servicekit.bindings import make_consumer
from servicekit.broker import Broker
from servicekit.consumer import Consumer, Received
from servicekit.database import Connection
from servicekit.locations import add_locations, projects_of

INSTANCE_CONSUMER = "lineage-instance-events"
ACCESS_CONSUMER = "lineage-access"
INSTANCE_SUBJECTS = ("optaic.*.instance.v1.>",)


def build_consumers(deps: Dependencies, broker: Broker) -> list[Consumer]:
    """Build the consumers of this service."""

    async def apply_instance_events(
        connection: Connection, tenant_id: str, batch: Sequence[Received]
    ) -> None:
        """Store the newest revision of each instance, the project that it belongs to, and what probes have found."""
        found = [conversion.snapshot_of_event(item.message, item.event.event_id) for item in batch]
        snapshots = [snapshot for snapshot in found if snapshot is not None]
        await add_locations(connection, tenant_id, projects_of(item.message for item in batch))
        if snapshots:
            await apply_snapshots(deps, connection, tenant_id, snapshots)
        told = [conversion.probe_fact_of_event(item.message, item.event.event_id) for item in batch]
        if probes := [fact for fact in told if fact is not None]:
            await apply_probes(deps, connection, tenant_id, probes)

    async def apply_run_events(connection: Connection, tenant_id: str, batch: Sequence[Received]) -> None:
        """Store what has become of each run."""
        found = [conversion.run_fact_of_event(item.message, item.event.event_id) for item in batch]
        facts = [fact for fact in found if fact is not None]
        if facts:
            await apply_run_facts(deps, connection, tenant_id, facts)

    return [
        Consumer(
            deps.database,
            broker,
            name=INSTANCE_CONSUMER,
            stream=INSTANCE_EVENTS,
            filter_subjects=INSTANCE_SUBJECTS,
            apply=apply_instance_events,
        ),
        Consumer(
            deps.database,
            broker,
            name=RUN_CONSUMER,
            stream=RUN_EVENTS,
            filter_subjects=RUN_SUBJECTS,
            apply=apply_run_events,
        ),
        make_consumer(
            deps.database,
            broker,
            name=ACCESS_CONSUMER,
            stream=INSTANCE_EVENTS,
            filter_subjects=ROLE_BINDING_SUBJECTS,
        ),
    ]
