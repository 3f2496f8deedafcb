"""Long random histories on PostgreSQL: transactions die between any two statements, and what was not acknowledged comes again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import pytest

from lineage_service.domain.runs import RunFact
from lineage_service.domain.snapshots import Snapshot
from servicekit.database import Connection, Database
from support import campaigns
from support.clock import FakeClock
from support.lineage_history import History
from support.lineage_service import Lineage, lineage_database, new_tenant, summaries

pytestmark = pytest.mark.faults
_COUNT = campaigns.count("OPTAIC_STORED_HISTORIES", 4, 2_000)
_MORTALITY = 0.4  # the share of the transactions that shall die
_LATEST = 25  # statements, of which most of these transactions have more


class _DeathError(Exception):
    """The process has died."""


class _Dying:
    """A connection that dies at a statement; the transaction is rolled back, as if nothing had been written."""

    def __init__(self, connection: Connection, left: int) -> None:
        self._connection = connection
        self._left = left

    def execute(self, *arguments: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise _DeathError
        return self._connection.execute(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _DyingDatabase:
    """A database whose transactions die at a random statement."""

    def __init__(self, database: Database, random: Random) -> None:
        self._database = database
        self._random = random
        self.doomed = 0
        self.deaths = 0  # of the doomed: the others had ended before

    @contextlib.asynccontextmanager
    async def transaction(self, tenant_id: str) -> AsyncIterator[Any]:
        """Open a transaction that dies at a statement of its own."""
        left = self._random.randint(1, _LATEST) if self._random.random() < _MORTALITY else 0
        self.doomed += left > 0
        try:
            async with self._database.transaction(tenant_id) as connection:
                yield _Dying(connection, left)
        except _DeathError:
            self.deaths += 1
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


@pytest.fixture
async def database(postgres_server: object) -> AsyncIterator[Database]:
    del postgres_server
    async with lineage_database() as opened:
        yield opened


async def _deliver(lineage: Lineage, items: Sequence[Snapshot | RunFact], random: Random) -> None:
    """Deliver events until they are applied and acknowledged; after some commits the acknowledgement is lost."""
    while True:
        with contextlib.suppress(_DeathError):
            await lineage.apply(items)
            if random.random() < 0.8:
                return


async def _replay(history: History, database: Database, deadly: _DyingDatabase, random: Random) -> None:
    """Let everything happen again, in the service and on its database, and compare the end."""
    clock = FakeClock()
    steady = Lineage(database, new_tenant(), clock)
    dying = Lineage(deadly, steady.tenant_id, clock)  # type: ignore[arg-type]  # the same to its callers
    for what, value in history.log:
        if what == "deliver":
            await _deliver(dying, value, random)
        elif what == "time":
            clock.advance(value)
        elif what == "invalidate":
            await steady.invalidate(value)
        elif what == "probe":
            await steady.probe([value])
        else:
            assert await steady.declare(what, value) == ""
        await steady.judge()
    assert await steady.state() == summaries(history.flows)
    assert await steady.recompute() == []


async def test_histories_of_twenty_flows_in_a_database(database: Database) -> None:
    random = campaigns.begin()
    deadly = _DyingDatabase(database, random)
    for _ in range(_COUNT):
        history = History(random, 20)
        history.run(30, deliveries=12, checks=0)
        await _replay(history, database, deadly, random)
    # About two of three; it is no campaign if nearly all live on.
    assert deadly.deaths >= deadly.doomed // 4
