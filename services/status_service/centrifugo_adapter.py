"""Live statuses on the channels of Centrifugo; it knows their names and what they carry."""

import asyncio
from collections.abc import Sequence
from typing import Any

from optaic.common.v1 import flow_pb2
from optaic.rules.realtime import status_channels
from servicekit.enums import enum_word
from servicekit.outlet import Outlet, Publication
from status_service import conversion
from status_service.ports import LiveStatus

# Messages are made in portions of well under a millisecond, with the work of the service between them.
_PORTION = 10


class CentrifugoStatusPublisher:
    """The port `StatusPublisher` on Centrifugo; `tenants` are those of the installation."""

    def __init__(self, outlet: Outlet, tenants: tuple[str, ...]) -> None:
        self._outlet = outlet
        self._tenants = tenants

    async def publish(self, tenant_id: str, statuses: Sequence[LiveStatus]) -> None:
        """Put each status on its instance's channel; the outlet keeps what Centrifugo does not take yet."""
        for start in range(0, len(statuses), _PORTION):
            portion = statuses[start : start + _PORTION]
            self._outlet.put([self._publication(tenant_id, each) for each in portion])
            await asyncio.sleep(0)

    def _publication(self, tenant_id: str, change: LiveStatus) -> Publication:
        status = change.status
        return Publication(
            status_channels(self._tenants, tenant_id, status.instance_id),
            payload(change),
            # Of two replicas the later one may send first: the server ignores what is older.
            version=status.revision,
            tenant_id=tenant_id,
        )


def payload(change: LiveStatus) -> dict[str, Any]:
    """Return what a channel carries. It names no other instance: whoever reads it may have no rights there."""
    status = change.status
    data: dict[str, Any] = {
        "status": enum_word(flow_pb2.Status, status.status),
        "last_run_id": status.last_run_id,
        "revision": status.revision,
        "previous_revision": change.previous_revision,
        "causes": list(conversion.cause_kinds_of(status)),
        "time": status.update_time.ToJsonString(),
    }
    if change.is_deleted:
        data["is_deleted"] = True
    return data
