"""The ports: what status-service needs of outside systems, without the names or types of any tool."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from optaic.status.v1 import status_pb2


@dataclass(frozen=True)
class LiveStatus:
    """A change of an instance's status, as listeners get it."""

    status: status_pb2.InstanceStatus
    previous_revision: int  # of the change before, of the same instance; 0: there was none
    is_deleted: bool = False


class StatusPublisher(Protocol):
    """The sender of statuses to current listeners."""

    async def publish(self, tenant_id: str, statuses: Sequence[LiveStatus]) -> None:
        """Send each status to its instance's channel, in this order."""
        ...
