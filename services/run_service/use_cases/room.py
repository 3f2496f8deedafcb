"""Keep the active runs of a tenant within their limit, without a lock as long as the limit is far away."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from run_service.domain.errors import too_many_active_runs
from run_service.store import submission
from servicekit.database import Connection, Database, lock_tenant
from servicekit.errors import DomainError

_FRESH_SECONDS = 1.0
# What other replicas could admit while a count is fresh is far less than half of the limit, and than this.
_LEAST_MARGIN = 1_000
_MOST_TENANTS = 10_000


@dataclass
class _Seen:
    """The number of active runs at a moment, and of those that this process has admitted since."""

    count: asyncio.Task[int]
    moment: float
    admitted: int = 0


class Room:
    """The room that each tenant has for active runs.

    Far from the limit a count of at most a second ago is enough, so a submission stays one statement. Near the limit the
    tenant's submissions come one after the other, and each counts for itself.
    """

    def __init__(self, database: Database, limit: int) -> None:
        self._database = database
        self._limit = limit
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    async def is_ample(self, tenant_id: str, runs: int = 1) -> bool:
        """Return whether so many more runs cannot reach the limit; they count as admitted."""
        if not self._limit:
            return True
        margin = max(_LEAST_MARGIN, self._limit // 2)
        if margin >= self._limit:
            return False
        now, seen = time.monotonic(), self._seen.get(tenant_id)
        if seen is None or now - seen.moment > _FRESH_SECONDS:
            count = submission.fetch_active_count(self._database, tenant_id, self._limit)
            seen = self._seen[tenant_id] = _Seen(asyncio.create_task(count), now)
            self._seen.move_to_end(tenant_id)
            while len(self._seen) > _MOST_TENANTS:
                self._seen.popitem(last=False)
        # A caller that gives up must not take the count from the others who wait for it.
        count_then = await asyncio.shield(seen.count)
        seen.admitted += runs
        return count_then + seen.admitted + margin <= self._limit

    @asynccontextmanager
    async def transaction(self, tenant_id: str) -> AsyncIterator[Connection]:
        """Open a transaction that may insert one run.

        Raises:
            NoRoomError: TOO_MANY_ACTIVE_RUNS.
        """
        async with self.transaction_of(tenant_id, 1) as (connection, places):
            if not places:
                raise self.refusal
            yield connection

    @asynccontextmanager
    async def transaction_of(self, tenant_id: str, runs: int) -> AsyncIterator[tuple[Connection, int]]:
        """Open a transaction that may insert runs: as many as are wanted, or as there is room for."""
        is_ample = await self.is_ample(tenant_id, runs)
        async with self._database.transaction(tenant_id) as connection:
            places = runs
            if not is_ample and self._limit:
                # Taken before any row, so that no submission waits for one that waits for it.
                await lock_tenant(connection, tenant_id)
                active = await submission.count_active(connection, tenant_id, self._limit)
                places = min(runs, self._limit - active)
            yield connection, places

    @property
    def refusal(self) -> DomainError:
        """The refusal of a run for which there is no room."""
        return too_many_active_runs(self._limit)

    async def check(self, connection: Connection, tenant_id: str) -> None:
        """Refuse one more run at the limit; the tenant's lock is held, or nothing is inserted.

        Raises:
            NoRoomError: TOO_MANY_ACTIVE_RUNS.
        """
        if self._limit and await submission.count_active(connection, tenant_id, self._limit) >= self._limit:
            raise self.refusal
