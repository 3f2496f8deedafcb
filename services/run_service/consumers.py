"""Pass each batch of events of one tenant to its use case, in the transaction of the consumer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optaic.rules.events import INSTANCE_EVENTS, LINEAGE_EVENTS, ROLE_BINDING_SUBJECTS
from run_service.use_cases import auto_refresh, cancellation, refresh_steps, timeline, upstream_waits
from run_service.use_cases.dependencies import Dependencies
from servicekit.bindings import make_consumer
from servicekit.broker import Broker
from servicekit.consumer import Consumer, Received
from servicekit.database import Connection
from servicekit.locations import add_locations, projects_of

LINEAGE_CONSUMER = "run-lineage"
INSTANCE_CONSUMER = "run-instance"
ACCESS_CONSUMER = "run-access"
LINEAGE_SUBJECTS = ("optaic.*.lineage.v1.flow_statuses_changed.*",)
INSTANCE_SUBJECTS = (
    "optaic.*.instance.v1.created.*",
    "optaic.*.instance.v1.updated.*",
    "optaic.*.instance.v1.deletion_requested.*",
)


def build_consumers(deps: Dependencies, broker: Broker) -> list[Consumer]:
    """Build the consumers of this service."""
    due: list[Callable[[], None]] = []  # wakes the loops for which the last batch made something due

    async def apply_lineage_events(connection: Connection, tenant_id: str, batch: Sequence[Received]) -> None:
        """Add to the timelines how many flows became stale; look at what waits for changed flows or follows them."""
        due.clear()
        if await refresh_steps.wake_concerned(deps, connection, tenant_id, batch):
            due.append(deps.wake_refresher)
        await timeline.add_affected_downstream(deps, connection, tenant_id, batch)
        if await upstream_waits.wake_waiting(deps, connection, tenant_id, batch):
            due.append(deps.wake_ticker)
        if await auto_refresh.wake_changed(deps, connection, tenant_id, batch):
            due.append(deps.wake_follower)

    def wake_after_lineage_events() -> None:
        for wake in due:
            wake()

    async def apply_instance_events(
        connection: Connection, tenant_id: str, batch: Sequence[Received]
    ) -> None:
        """Store which project an instance belongs to and whether it follows; cancel the runs of instances that are to be deleted."""
        await add_locations(connection, tenant_id, projects_of(item.message for item in batch))
        # Before the counters of flows are locked: whoever submits a run takes the locks in this order.
        await auto_refresh.note_instances(deps, connection, tenant_id, batch)
        await cancellation.cancel_deleted(deps, connection, tenant_id, batch)

    def wake_after_instance_events() -> None:
        deps.wake_dispatcher()
        deps.wake_follower()

    return [
        Consumer(
            deps.database,
            broker,
            name=LINEAGE_CONSUMER,
            stream=LINEAGE_EVENTS,
            filter_subjects=LINEAGE_SUBJECTS,
            apply=apply_lineage_events,
            committed=wake_after_lineage_events,
        ),
        Consumer(
            deps.database,
            broker,
            name=INSTANCE_CONSUMER,
            stream=INSTANCE_EVENTS,
            filter_subjects=INSTANCE_SUBJECTS,
            apply=apply_instance_events,
            committed=wake_after_instance_events,
        ),
        make_consumer(
            deps.database,
            broker,
            name=ACCESS_CONSUMER,
            stream=INSTANCE_EVENTS,
            filter_subjects=ROLE_BINDING_SUBJECTS,
        ),
    ]
