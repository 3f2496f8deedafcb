"""Stream the changes of runs: those of this process after each commit, those of other replicas by polling."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from run_service.config import Settings
from run_service.domain.errors import run_not_found
from run_service.domain.statuses import ENDED
from run_service.store import runs as run_store
from run_service.store.records import Record
from servicekit.database import Database


class _Watcher:
    """The bounded queue of one stream; its revisions only go up."""

    def __init__(self, size: int) -> None:
        self.revision = 0
        self._queue: deque[Record] = deque(maxlen=size)
        self._arrived = asyncio.Event()

    def put(self, record: Record) -> None:
        if record.revision > self.revision:
            self.revision = record.revision
            self._queue.append(record)
            self._arrived.set()

    async def get(self) -> Record:
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()


class Watches:
    """The watches of this process."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._watchers: dict[tuple[str, str], set[_Watcher]] = {}

    def publish(self, tenant_id: str, records: Iterable[Record]) -> None:
        """Send committed changes to their watchers."""
        for record in records:
            for watcher in self._watchers.get((tenant_id, record.run.run_id), ()):
                watcher.put(record)

    async def watch(self, tenant_id: str, run_id: str) -> AsyncGenerator[Record, None]:
        """Yield the run as it is, then after each change, until it has ended; again, unchanged, if no change comes for a while.

        Raises:
            NotFoundError: RUN_NOT_FOUND.
        """
        key, watcher = (tenant_id, run_id), _Watcher(self._settings.watch_queue_size)
        # Registered before the read, so that a change in between is not lost.
        self._watchers.setdefault(key, set()).add(watcher)
        try:
            async with self._database.read(tenant_id) as connection:
                record = await run_store.get_run(connection, tenant_id, run_id)
            if record is None:
                raise run_not_found(run_id)
            watcher.put(record)
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.watch_bookmark_seconds):
                        record = await watcher.get()
                yield record
                if record.status in ENDED:
                    return
        finally:
            self._watchers[key].discard(watcher)
            if not self._watchers[key]:
                del self._watchers[key]

    async def look(self) -> bool:
        """Read watched runs that have a newer revision than their watchers know, with one query for each tenant."""
        by_tenant: dict[str, set[str]] = {}
        for tenant_id, run_id in self._watchers:
            by_tenant.setdefault(tenant_id, set()).add(run_id)
        for tenant_id, run_ids in by_tenant.items():
            async with self._database.read(tenant_id) as connection:
                revisions = await run_store.list_run_revisions(connection, tenant_id, run_ids)
                moved = [
                    run_id
                    for run_id, revision in revisions
                    if any(
                        watcher.revision < revision for watcher in self._watchers.get((tenant_id, run_id), ())
                    )
                ]
                if moved:
                    self.publish(tenant_id, await run_store.list_runs_by_id(connection, tenant_id, moved))
        return False
