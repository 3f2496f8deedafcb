"""The ports: what status-service needs of outside systems, without the names or types of any tool."""

from collections.abc import Sequence
from typing import Protocol

from optaic.status.v1 import status_pb2


class StatusPublisher(Protocol):
    """The sender of statuses to current listeners; it stores and repeats nothing."""

    async def publish(self, tenant_id: str, statuses: Sequence[status_pb2.InstanceStatus]) -> None:
        """Send each status to its instance's channel, in this order."""
        ...
