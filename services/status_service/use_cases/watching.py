"""Feed status changes to watchers: in order, without gaps, with bounded memory; writes nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from servicekit.database import Database
from servicekit.errors import OutOfRangeError
from servicekit.loop import Loop
from status_service.domain.errors import revision_compacted, watcher_too_slow
from status_service.store.changes import ChangeRow, fetch_changes

_PAGE = 500


@dataclass(eq=False)
class _Watcher:
    """One watcher's buffer."""

    changes: deque[ChangeRow] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    # Prevents a silent gap: once set, nothing more is delivered.
    failure: Exception | None = None


@dataclass(eq=False)
class _TenantFeed:
    """One tenant's position in the log, shared by its watchers: one query, however many watch."""

    position: int
    watchers: set[_Watcher] = field(default_factory=set)
    loop: Loop | None = None
    task: asyncio.Task[None] | None = None


class ChangeFeed:
    """The reader of the log: it reads once for each watched tenant, woken by commits here and by a short poll."""

    def __init__(
        self, database: Database, *, poll_seconds: float, buffer_size: int, bookmark_seconds: float
    ) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._buffer_size = buffer_size
        self._bookmark_seconds = bookmark_seconds
        self._tenants: dict[str, _TenantFeed] = {}

    def wake(self) -> None:
        """Look for changes now; call this after each commit that may have made some."""
        for feed in self._tenants.values():
            assert feed.loop is not None
            feed.loop.wake()

    async def read_after(self, tenant_id: str, position: int) -> AsyncIterator[Sequence[ChangeRow]]:
        """Yield every change after a revision, in order, for ever; an empty sequence when none came for a while.

        Raises:
            OutOfRangeError: REVISION_COMPACTED; the log does not reach back to the position.
            ResourceExhaustedError: WATCHER_TOO_SLOW; more changes came than may wait.
        """
        while changes := await self._read(tenant_id, position):
            position = changes[-1].revision
            yield changes
        feed, watcher = self._join(tenant_id, position)
        try:
            # The shared feed may be ahead by now: what it has passed is read here, what comes is buffered.
            while position < feed.position and (changes := await self._read(tenant_id, position)):
                position = changes[-1].revision
                yield changes
            while True:
                try:
                    async with asyncio.timeout(self._bookmark_seconds):
                        await watcher.woken.wait()
                except TimeoutError:
                    yield ()
                    continue
                watcher.woken.clear()
                if watcher.failure is not None:
                    raise watcher.failure
                new = [change for change in watcher.changes if change.revision > position]
                watcher.changes.clear()
                if new:
                    position = new[-1].revision
                    yield new
        finally:
            self._leave(tenant_id, feed, watcher)

    def _join(self, tenant_id: str, position: int) -> tuple[_TenantFeed, _Watcher]:
        feed = self._tenants.get(tenant_id)
        if feed is None:
            feed = self._tenants[tenant_id] = _TenantFeed(position)
            joined = feed

            async def step() -> bool:
                return await self._advance(tenant_id, joined)

            feed.loop = Loop(f"watch {tenant_id}", self._poll_seconds, step)
            feed.task = asyncio.create_task(feed.loop.run(), name=f"watch-{tenant_id}")
        watcher = _Watcher()
        feed.watchers.add(watcher)
        return feed, watcher

    def _leave(self, tenant_id: str, feed: _TenantFeed, watcher: _Watcher) -> None:
        feed.watchers.discard(watcher)
        if not feed.watchers and feed.task is not None:
            feed.task.cancel()
            if self._tenants.get(tenant_id) is feed:
                del self._tenants[tenant_id]

    async def _advance(self, tenant_id: str, feed: _TenantFeed) -> bool:
        try:
            changes = await self._read(tenant_id, feed.position)
        except OutOfRangeError as error:
            # This process slept longer than the log is kept. New watchers get a new feed.
            self._tenants.pop(tenant_id, None)
            for watcher in feed.watchers:
                self._fail(watcher, error)
            await asyncio.Event().wait()  # until the last of them has left, which ends this task
        if not changes:
            return False
        # No await from here on: a watcher that joins sees either all of these or a position beyond them.
        feed.position = changes[-1].revision
        for watcher in feed.watchers:
            if watcher.failure is None and len(watcher.changes) + len(changes) > self._buffer_size:
                self._fail(watcher, watcher_too_slow(self._buffer_size))
            elif watcher.failure is None:
                watcher.changes.extend(changes)
                watcher.woken.set()
        return True

    @staticmethod
    def _fail(watcher: _Watcher, error: Exception) -> None:
        watcher.failure = error
        watcher.changes.clear()
        watcher.woken.set()

    async def _read(self, tenant_id: str, position: int) -> list[ChangeRow]:
        limit = min(_PAGE, self._buffer_size)
        revisions, changes = await fetch_changes(self._database, tenant_id, position, limit)
        if not revisions.compacted_revision <= position <= revisions.revision:
            raise revision_compacted(position, revisions.compacted_revision, revisions.revision)
        return changes
