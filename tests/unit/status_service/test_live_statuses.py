"""Live statuses wait in a bounded buffer; what does not fit is lost, and the log counts it."""

import asyncio
from collections.abc import Sequence

from optaic.status.v1.status_pb2 import InstanceStatus
from status_service.consumers import LiveStatuses
from status_service.ports import LiveStatus
from support.logs import logged_by
from support.polling import eventually


class _Held:
    """A publisher that waits until it is let go."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.may_go = asyncio.Event()

    async def publish(self, tenant_id: str, statuses: Sequence[LiveStatus]) -> None:
        del tenant_id
        await self.may_go.wait()
        self.sent += [each.status.revision for each in statuses]


def _changes(first: int, last: int) -> list[LiveStatus]:
    return [LiveStatus(InstanceStatus(revision=number), number - 1) for number in range(first, last + 1)]


async def test_messages_that_do_not_fit_are_counted() -> None:
    slow, quick = _Held(), _Held()
    quick.may_go.set()
    live = LiveStatuses([slow, quick], buffer_size=5)
    with logged_by("status-service", "info") as log:
        sending = asyncio.create_task(live.run())
        live.put("acme", _changes(1, 2))
        await eventually(lambda: quick.sent == [1, 2])
        live.put("acme", _changes(3, 6))
        await eventually(lambda: len(quick.sent) == 6)
        live.put("acme", _changes(7, 10))
        await eventually(lambda: len(quick.sent) == 10)
        slow.may_go.set()
        await eventually(lambda: len(slow.sent) == 7)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert quick.sent == list(range(1, 11))
    assert slow.sent == [1, 2, 6, 7, 8, 9, 10]
    told = log.getvalue()
    assert told.count("live statuses lost") == 1
    assert "OPTAIC_LIVE_BUFFER is full" in told
    assert '"count": 3' in told
