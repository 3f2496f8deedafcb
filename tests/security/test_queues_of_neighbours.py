"""One tenant has ten thousand rows in a queue; the row of another is in the next batch all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from devstack.postgres import Postgres
from instance_service.config import Settings as InstanceSettings
from instance_service.store import queue
from run_service.config import Settings as RunSettings
from run_service.store import endings, queues, ticks
from run_service.store.tables import dispatches
from servicekit.audit import storage
from servicekit.database import Database
from servicekit.turns import in_turns
from support.postgres import service_database

ATTACKER, VICTIM = "acme", "other"
FLOOD = 10_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLAIM = NOW + timedelta(seconds=20)

_DISPATCH = """
    insert into dispatches (tenant_id, run_id, action, instance_id, flow_kind, name, submit_time, due_time)
    select :tenant, gen_random_uuid(), :action, gen_random_uuid(), 'refresh', 'x', :time, :time
    from generate_series(1, :count)
"""
_LEASE = """
    insert into leases (tenant_id, run_id, fencing_token, expire_time)
    select :tenant, gen_random_uuid(), gen_random_uuid(), :time from generate_series(1, :count)
"""
_RETRY = """
    insert into retries (tenant_id, run_id, due_time)
    select :tenant, gen_random_uuid(), :time from generate_series(1, :count)
"""
_TICK = """
    insert into ticks (tenant_id, instance_id, flow_kind, scheduled_time, orchestrator_run_id, due_time)
    select :tenant, gen_random_uuid(), 'refresh', :time, gen_random_uuid(), :time from generate_series(1, :count)
"""
_ENDING = """
    insert into endings (tenant_id, orchestrator_run_id, state, settle_time, due_time)
    select :tenant, gen_random_uuid(), 'CANCELLED', :time, :time from generate_series(1, :count)
"""
_RECONCILIATION = """
    insert into reconciliations (tenant_id, instance_id, due_time, attempts)
    select :tenant, gen_random_uuid(), :time, 0 from generate_series(1, :count)
"""
_AUDIT_RECORD = """
    insert into audit_records (tenant_id, audit_id, time, actor, method, resource, content)
    select :tenant, gen_random_uuid(), :time, 'ada', 'x', 'y', '' from generate_series(1, :count)
"""

Take = Callable[[Any], Awaitable[list[str]]]


@pytest_asyncio.fixture
async def run_database(postgres_server: Postgres) -> AsyncIterator[Database]:
    del postgres_server
    async with service_database("run", "run_service") as urls:
        database = Database(RunSettings.model_validate(urls))
        yield database
        await database.close()


@pytest_asyncio.fixture
async def instance_database(postgres_server: Postgres) -> AsyncIterator[Database]:
    del postgres_server
    async with service_database("instance", "instance_service") as urls:
        database = Database(InstanceSettings.model_validate(urls))
        yield database
        await database.close()


async def flood(database: Database, insert: str, **values: object) -> None:
    """Give the attacker ten thousand rows, and then the victim one that is due later."""
    async with database.infra() as connection:
        for tenant, count, age in ((ATTACKER, FLOOD, 60), (VICTIM, 1, 1)):
            parameters = {"tenant": tenant, "count": count, "time": NOW - timedelta(seconds=age), **values}
            await connection.execute(sa.text(insert), parameters)


async def _dispatches(connection: Any) -> list[str]:
    return [each.tenant_id for each in await queues.claim_dispatches(connection, {"create"}, NOW, CLAIM, 8)]


async def _observed(connection: Any) -> list[str]:
    return [each.tenant_id for each in await queues.claim_dispatches(connection, {"await"}, NOW, CLAIM, 200)]


async def _expired(connection: Any) -> list[str]:
    return [tenant for tenant, _ in await queues.list_expired_dispatches(connection, NOW, 200)]


async def _leases(connection: Any) -> list[str]:
    return [tenant for tenant, _ in await queues.list_expired_leases(connection, NOW, 200)]


async def _retries(connection: Any) -> list[str]:
    return [tenant for tenant, _ in await queues.claim_retries(connection, NOW, CLAIM, 8)]


async def _ticks(connection: Any) -> list[str]:
    return [tenant for tenant, _, _ in await ticks.claim_flows(connection, NOW, CLAIM, 32)]


async def _endings(connection: Any) -> list[str]:
    return [each.tenant_id for each in await endings.claim_endings(connection, NOW, CLAIM, 200)]


async def _unsealed(connection: Any) -> list[str]:
    return [tenant for tenant, _, _ in await storage.list_unsealed(connection, 2_000)]


async def _reconciliations(connection: Any) -> list[str]:
    return [each.tenant_id for each in await queue.claim(connection, 100, 10.0)]


@pytest.mark.parametrize(
    ("insert", "values", "take", "batch"),
    [
        pytest.param(_DISPATCH, {"action": "create"}, _dispatches, 8, id="dispatches"),
        pytest.param(_DISPATCH, {"action": "await"}, _observed, 200, id="observation"),
        pytest.param(_DISPATCH, {"action": "create"}, _expired, 200, id="expiry"),
        pytest.param(_LEASE, {}, _leases, 200, id="leases"),
        pytest.param(_RETRY, {}, _retries, 8, id="retries"),
        pytest.param(_TICK, {}, _ticks, 32, id="ticks"),
        pytest.param(_ENDING, {}, _endings, 200, id="endings"),
        pytest.param(_AUDIT_RECORD, {}, _unsealed, 2_000, id="seals"),
    ],
)
async def test_a_queue_of_run_service_is_read_in_turns(
    run_database: Database, insert: str, values: dict[str, object], take: Take, batch: int
) -> None:
    await flood(run_database, insert, **values)
    async with run_database.infra() as connection:
        taken = await take(connection)
    assert taken.count(VICTIM) == 1
    assert taken.count(ATTACKER) == batch - 1, "whoever is alone has the whole batch"


async def test_the_queue_of_the_reconciler_is_read_in_turns(instance_database: Database) -> None:
    await flood(instance_database, _RECONCILIATION)
    async with instance_database.infra() as connection:
        taken = await _reconciliations(connection)
    assert (taken.count(VICTIM), taken.count(ATTACKER)) == (1, 99)


async def test_two_replicas_share_a_flooded_queue(run_database: Database) -> None:
    await flood(run_database, _DISPATCH, action="create")

    async def claim() -> set[str]:
        async with run_database.infra() as connection:
            claimed = await queues.claim_dispatches(connection, {"create"}, NOW, CLAIM, 100)
            await asyncio.sleep(0.05)  # the locks of both are held at once
        return {each.run_id for each in claimed}

    first, second = await asyncio.gather(claim(), claim())
    assert (len(first), len(second)) == (100, 100)
    assert first.isdisjoint(second)


async def test_a_hundred_thousand_rows_do_not_slow_a_claim(postgres_server: Postgres) -> None:
    del postgres_server
    async with service_database("run", "run_service") as urls:
        database = Database(RunSettings.model_validate(urls))
        async with database.infra() as connection:
            parameters = {"tenant": ATTACKER, "action": "create", "time": NOW - timedelta(seconds=60)}
            await connection.execute(sa.text(_DISPATCH), {**parameters, "count": 10 * FLOOD})
        owner = sa.create_engine(urls["database_owner_url"], poolclass=sa.NullPool)
        with owner.begin() as connection:
            connection.execute(sa.text("analyze dispatches"))  # as the server does by itself within a minute
        turns = in_turns(
            dispatches,
            lambda columns: columns.due_time <= NOW,
            key=("tenant_id", "run_id"),
            order="due_time",
            limit=8,
        )
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
        text = turns.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        async with database.infra() as connection:
            explained = await connection.exec_driver_sql(f"explain (analyze, buffers, format json) {text}")
            plan = explained.scalar_one()[0]["Plan"]
        await database.close()
    assert plan["Actual Rows"] == 8
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100, "the queue has some two thousand"
