"""Publish the outbox in order, and delete the rows that the broker acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from servicekit.backoff import backoff
from servicekit.broker import Broker, OrderedChannel
from servicekit.database import Database
from servicekit.direct import as_text
from servicekit.events import Event, headers_of
from servicekit.pace import Pace
from servicekit.schema import outbox
from servicekit.turns import MOST, in_turns

_RELAY_LOCK = sa.text("select pg_try_advisory_lock(hashtextextended('servicekit.relay', 0))")
_CHOSEN = in_turns(
    outbox,
    lambda _: sa.true(),
    key=("tenant_id", "id"),
    order="id",
    limit=MOST,
).cte("chosen")
_OLDEST = as_text(
    sa.select(outbox)
    .join(_CHOSEN, sa.and_(outbox.c.tenant_id == _CHOSEN.c.tenant_id, outbox.c.id == _CHOSEN.c.id))
    .order_by(outbox.c.id)
)
# A crash may forget that rows were deleted: they are published again, and whoever has applied their events ignores them.
_RELAXED = sa.text("set synchronous_commit = off")
_DELETE = sa.text("delete from outbox where id = any(cast(:ids as bigint[]))")
_PRUNE = (
    # No event is replayed after the streams' age; a repeated request is recognised for a week.
    sa.text("delete from consumed_events where consumed_time < now() - interval '30 days'"),
    sa.text("delete from request_replies where create_time < now() - interval '7 days'"),
)
_PRUNE_INTERVAL = 3600.0
_WINDOW_TIMEOUT = 30.0
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 5.0
_JITTER = 0.25  # spreads the replicas
_log = structlog.get_logger(__name__)


class Relay:
    """The relay of one process; among all relays of a database a session lock elects the one that works."""

    def __init__(
        self, database: Database, broker: Broker, *, window: int = 256, poll_seconds: float = 0.5
    ) -> None:
        self._database = database
        self._broker = broker
        self._window = window
        self._poll_seconds = poll_seconds
        self._woken = asyncio.Event()
        self.is_leader = False
        self._listener: Callable[[Sequence[Event]], None] = lambda _: None
        database.on_appended(self.wake)

    def on_published(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Tell `listener` of the events that the broker has acknowledged, in order; if a relay dies, some of them twice or never."""
        self._listener = listener

    def wake(self) -> None:
        """Look at the outbox now; the database calls it after each commit that wrote events."""
        self._woken.set()

    async def run(self) -> None:
        """Publish for ever; after any error, wait and go on."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._lead_if_elected()
            except Exception as error:  # noqa: BLE001 - nothing may end the relay
                if time.monotonic() - began > _LONGEST_BACKOFF:
                    failures = 0
                failures += 1
                wait = backoff(failures, first=_FIRST_BACKOFF, longest=_LONGEST_BACKOFF, jitter=_JITTER)
                _log.warning("relay interrupted", error=repr(error), retry_seconds=wait)
                await asyncio.sleep(wait)
            finally:
                self.is_leader = False
            await asyncio.sleep(self._poll_seconds * random.uniform(0.5, 1))  # noqa: S311 - spreads the replicas

    async def _lead_if_elected(self) -> None:
        async with self._database.infra_session() as connection:
            if not (await connection.execute(_RELAY_LOCK)).scalar_one():
                return
            await connection.execute(_RELAXED)
            async with self._broker.channel() as channel:
                self.is_leader = True
                _log.info("relay elected")
                prune_due = 0.0
                pace = Pace()
                while True:
                    self._woken.clear()
                    is_more = True
                    while is_more:
                        async with asyncio.timeout(_WINDOW_TIMEOUT):
                            with pace.working():
                                is_more = await self._publish_window(connection, channel)
                    if time.monotonic() >= prune_due:
                        for statement in _PRUNE:
                            await connection.execute(statement)
                        prune_due = time.monotonic() + _PRUNE_INTERVAL
                    await asyncio.sleep(pace.gathering_seconds())
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._poll_seconds):
                            await self._woken.wait()

    async def _publish_window(self, connection: AsyncConnection, channel: OrderedChannel) -> bool:
        """Publish the oldest rows of each tenant, in turns of the tenants; return whether there may be more.

        Ids do not commit in order, so each call begins with a tenant's oldest row that is there, never after the last one.
        """
        rows = (await connection.execute(_OLDEST, {"most": self._window})).all()
        if not rows:
            return False
        events = [_event_of(row) for row in rows]
        messages = [(event.subject, event.payload, headers_of(event)) for event in events]
        acknowledged = await channel.publish(messages)
        done = [row.id for row, is_done in zip(rows, acknowledged, strict=True) if is_done]
        await connection.execute(_DELETE, {"ids": done})
        self._listener([event for event, is_done in zip(events, acknowledged, strict=True) if is_done])
        return len(rows) == self._window


def _event_of(row: sa.Row[tuple[object, ...]]) -> Event:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented access by name
    del values["id"]
    return Event(**{**values, "event_id": str(values["event_id"])})
