"""What this service does about other services' events; the inbox has already dropped repeats."""

from __future__ import annotations

from collections.abc import Sequence

from instance_service.store.tables import Connection
from instance_service.use_cases.deletion import remove_finalizer
from instance_service.use_cases.environment import Environment
from optaic.lineage.v1.lineage_events_pb2 import LineageCleared
from servicekit.consumer import Received

STREAM = "LINEAGE_EVENTS"
SUBJECTS = ("optaic.*.lineage.v1.cleared.*",)


class LineageConsumer:
    """Finishes deletions for which lineage-service has nothing left."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    async def apply(self, connection: Connection, tenant_id: str, batch: Sequence[Received]) -> None:
        """Take the finalizer `lineage` off the instances that are cleared."""
        cleared = [
            received.message.instance_id for received in batch if isinstance(received.message, LineageCleared)
        ]
        await remove_finalizer(connection, self._environment, tenant_id, cleared, "lineage")
