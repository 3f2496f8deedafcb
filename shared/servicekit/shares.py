"""Share the database connections of a process among tenants in turns; no tenant holds all of them."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servicekit.errors import UnavailableError


def database_busy() -> UnavailableError:
    """Return the refusal of a call for which no connection became free in time."""
    return UnavailableError("DATABASE_BUSY", "no database connection became free in time; retry")


def most_of_one(places: int) -> int:
    """Return how many of the places one tenant may hold: three quarters, so that the others find one."""
    return max(1, places * 3 // 4)


class Shares:
    """The places, given to the tenants in turns and within a tenant in the order of arrival."""

    def __init__(self, places: int, most: int) -> None:
        self._free = places
        self._most = most
        self._held: Counter[str] = Counter()
        # By tenant; the tenant whose turn is next comes first.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def take(self, tenant_id: str, timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109 - of the wait alone
        """Hold a place as long as the block runs.

        Raises:
            UnavailableError: DATABASE_BUSY: no place became free in time.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._acquire(tenant_id)
        except TimeoutError:
            raise database_busy() from None
        try:
            yield
        finally:
            self._release(tenant_id)

    async def _acquire(self, tenant_id: str) -> None:
        if self._free and self._held[tenant_id] < self._most and tenant_id not in self._waiting:
            self._give(tenant_id)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant_id, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(tenant_id)  # it was given just before the caller gave up
            raise

    def _give(self, tenant_id: str) -> None:
        self._free -= 1
        self._held[tenant_id] += 1

    def _release(self, tenant_id: str) -> None:
        self._free += 1
        self._held[tenant_id] -= 1
        if not self._held[tenant_id]:
            del self._held[tenant_id]
        self._give_turns()

    def _give_turns(self) -> None:
        """Give the free places to those who wait; whoever gets one is the last to get another."""
        for tenant_id in list(self._waiting):
            if not self._free:
                return
            turns = self._waiting[tenant_id]
            while turns and turns[0].done():  # its caller has given up
                turns.popleft()
            if turns and self._held[tenant_id] < self._most:
                self._give(tenant_id)
                turns.popleft().set_result(None)
                self._waiting.move_to_end(tenant_id)
            if not turns:
                del self._waiting[tenant_id]
