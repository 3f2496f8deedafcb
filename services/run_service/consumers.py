"""Connect each consumed event with its use case; decide nothing."""

from __future__ import annotations

from collections.abc import Sequence

from optaic.rules.events import INSTANCE_EVENTS, LINEAGE_EVENTS, ROLE_BINDING_SUBJECTS
from run_service.store import Connection
from run_service.use_cases import cancellation, timeline
from run_service.use_cases.dependencies import Dependencies
from servicekit.bindings import make_consumer
from servicekit.broker import Broker
from servicekit.consumer import Consumer, Received

ACCESS_CONSUMER = "run-access"


def build_consumers(deps: Dependencies, broker: Broker) -> list[Consumer]:
    """Return the consumers of this service."""

    async def flow_statuses_changed(
        connection: Connection, tenant_id: str, batch: Sequence[Received]
    ) -> None:
        await timeline.add_affected_downstream(deps, connection, tenant_id, batch)

    async def instance_deletion_requested(
        connection: Connection, tenant_id: str, batch: Sequence[Received]
    ) -> None:
        await cancellation.cancel_deleted(deps, connection, tenant_id, batch)

    return [
        Consumer(
            deps.database,
            broker,
            name="run-lineage",
            stream=LINEAGE_EVENTS,
            filter_subjects=["optaic.*.lineage.v1.flow_statuses_changed.*"],
            apply=flow_statuses_changed,
        ),
        Consumer(
            deps.database,
            broker,
            name="run-instance",
            stream=INSTANCE_EVENTS,
            filter_subjects=["optaic.*.instance.v1.deletion_requested.*"],
            apply=instance_deletion_requested,
            committed=lambda: deps.wake_dispatcher(),  # noqa: PLW0108 - the loop is wired after the consumers
        ),
        make_consumer(
            deps.database,
            broker,
            name=ACCESS_CONSUMER,
            stream=INSTANCE_EVENTS,
            filter_subjects=ROLE_BINDING_SUBJECTS,
        ),
    ]
