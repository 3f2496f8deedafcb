"""Live statuses on core NATS; it knows the subject and nothing else."""

from collections.abc import Sequence

from servicekit.broker import Broker
from status_service.ports import LiveStatus


class NatsStatusPublisher:
    """The port `StatusPublisher` on NATS; the subject is `optaic-live.<tenant>.status.<instance id>`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def publish(self, tenant_id: str, statuses: Sequence[LiveStatus]) -> None:
        """Send to current listeners, but no deletions; without a connection the messages are lost."""
        for each in statuses:
            if not each.is_deleted:
                subject = f"optaic-live.{tenant_id}.status.{each.status.instance_id}"
                await self._broker.publish_live(subject, each.status.SerializeToString())
