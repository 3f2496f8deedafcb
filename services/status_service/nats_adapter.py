"""Live statuses on core NATS; it knows the subject and nothing else."""

from collections.abc import Sequence

from optaic.status.v1 import status_pb2
from servicekit.broker import Broker


class NatsStatusPublisher:
    """The port `StatusPublisher` on NATS; the subject is `optaic-live.<tenant>.status.<instance id>`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def publish(self, tenant_id: str, statuses: Sequence[status_pb2.InstanceStatus]) -> None:
        """Send to current listeners; without a connection the messages are lost."""
        for status in statuses:
            subject = f"optaic-live.{tenant_id}.status.{status.instance_id}"
            await self._broker.publish_live(subject, status.SerializeToString())
