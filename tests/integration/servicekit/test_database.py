"""Tenants are kept apart by PostgreSQL, and a database that goes away is told apart from a fault of ours."""

import asyncio

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from integration.servicekit.sample import insert_note, list_notes, make_settings, sample_event
from servicekit import context, outbox
from servicekit.context import RequestContext
from servicekit.database import Database, lock_tenant
from servicekit.errors import (
    AbortedError,
    DeadlineExceededError,
    InvalidArgumentError,
    UnavailableError,
)
from servicekit.outbox import append
from servicekit.settings import ServiceSettings
from support.polling import eventually
from support.postgres import admin_url
from support.proxy import Proxy


async def test_a_transaction_commits_its_writes(database: Database) -> None:
    async with database.transaction("acme") as connection:
        await insert_note(connection, "acme", "1")
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1"]


async def test_an_error_rolls_everything_back(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the failing transaction is the statement
        async with database.transaction("acme") as connection:
            await insert_note(connection, "acme", "1")
            raise ZeroDivisionError
    async with database.read("acme") as connection:
        assert await list_notes(connection) == []


async def test_rows_of_another_tenant_are_neither_visible_nor_writable(database: Database) -> None:
    async with database.transaction("acme") as connection:
        await insert_note(connection, "acme", "1")
    async with database.transaction("rival") as connection:
        assert await list_notes(connection) == []
        assert (await connection.execute(sa.text("update notes set text = 'x'"))).rowcount == 0
        assert (await connection.execute(sa.text("delete from notes"))).rowcount == 0
    with pytest.raises(DBAPIError, match="row-level security"):
        async with database.transaction("rival") as connection:
            await insert_note(connection, "acme", "2")


@pytest.mark.parametrize("table", ["outbox", "consumed_events", "request_replies", "jobs", "notes"])
async def test_every_table_is_protected_by_force(urls: dict[str, str], table: str) -> None:
    owner = urls["database_owner_url"].replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(owner) as connection:
        flags = await connection.execute(
            "select relrowsecurity, relforcerowsecurity from pg_class where relname = %s", [table]
        )
        assert await flags.fetchone() == (True, True)


async def test_without_a_tenant_the_request_login_sees_and_writes_nothing(
    database: Database, urls: dict[str, str]
) -> None:
    async with database.transaction("acme") as connection:
        await insert_note(connection, "acme", "1")
    app = urls["database_url"].replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(app, autocommit=True) as connection:
        count = "select count(*) from notes"
        assert await (await connection.execute(count)).fetchone() == (0,)
        # A setting that was local to an earlier transaction is empty afterwards, not absent.
        await connection.execute("begin; select set_config('optaic.tenant_id', 'acme', true); commit")
        assert await (await connection.execute(count)).fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("insert into notes values ('', '1', '')")


async def test_with_protection_switched_off_tenants_see_each_other(
    database: Database, urls: dict[str, str]
) -> None:
    async with database.transaction("acme") as connection:
        await insert_note(connection, "acme", "1")
    name = urls["database_url"].rpartition("/")[2]
    async with await psycopg.AsyncConnection.connect(admin_url(name), autocommit=True) as connection:
        await connection.execute("alter table notes disable row level security")
    async with database.read("rival") as connection:
        assert await list_notes(connection) == ["1"]


async def test_the_request_login_cannot_see_tables_without_a_grant(urls: dict[str, str]) -> None:
    infra = urls["database_infra_url"].replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(infra) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("select * from notes")


async def test_the_infrastructure_login_sees_the_queues_of_all_tenants(database: Database) -> None:
    for tenant in ("acme", "rival"):
        async with database.transaction(tenant) as connection:
            await append(connection, [sample_event("x", tenant)])
    async with database.infra() as connection:
        tenants = (await connection.execute(sa.text("select tenant_id from outbox order by 1"))).scalars()
        assert list(tenants) == ["acme", "rival"]


@pytest.mark.parametrize("tenant", ["", "a'b", "A", "a" * 64, "a.b", "*", "a b"])
async def test_an_invalid_tenant_id_never_reaches_the_database(database: Database, tenant: str) -> None:
    with pytest.raises(ValueError, match="tenant"):
        async with database.transaction(tenant):
            pass


async def test_a_read_sees_one_snapshot_and_writes_nothing(database: Database) -> None:
    async with database.read("acme") as snapshot:
        assert await list_notes(snapshot) == []
        async with database.transaction("acme") as connection:
            await insert_note(connection, "acme", "1")
        assert await list_notes(snapshot) == []
    with pytest.raises(DBAPIError, match="read-only"):
        async with database.read("acme") as connection:
            await insert_note(connection, "acme", "2")


async def test_two_transactions_of_a_tenant_wait_for_each_other_under_its_lock(database: Database) -> None:
    order: list[str] = []
    is_locked = asyncio.Event()

    async def second() -> None:
        await is_locked.wait()
        async with database.transaction("acme") as connection:
            await lock_tenant(connection, "acme")
            order.append(str(await list_notes(connection)))

    async with asyncio.TaskGroup() as group:
        group.create_task(second())
        async with database.transaction("acme") as connection:
            await lock_tenant(connection, "acme")
            is_locked.set()
            async with database.transaction("rival") as other:  # another tenant is not held up
                await lock_tenant(other, "rival")
            order.append("first")
            await insert_note(connection, "acme", "1")
    assert order == ["first", "['1']"]


async def test_connections_that_died_in_the_pool_cost_no_request(
    database: Database, urls: dict[str, str]
) -> None:
    await asyncio.gather(*(database.ping() for _ in range(4)))
    name = urls["database_url"].rpartition("/")[2]
    async with await psycopg.AsyncConnection.connect(admin_url(name), autocommit=True) as connection:
        await connection.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
    for _ in range(6):
        async with database.transaction("acme") as connection:
            await list_notes(connection)


async def test_a_database_that_is_away_is_unavailable_and_comes_back(urls: dict[str, str]) -> None:
    async with Proxy(urls["database_url"]) as proxy:
        database = Database(make_settings(**{**urls, "database_url": proxy.url}))
        await database.ping()
        proxy.cut()
        with pytest.raises(UnavailableError) as failure:
            await database.ping()
        assert failure.value.reason == "DATABASE_UNAVAILABLE"
        proxy.heal()
        await database.ping()
        await database.close()


async def test_a_connection_lost_in_the_middle_is_unavailable(urls: dict[str, str]) -> None:
    async with Proxy(urls["database_url"]) as proxy:
        database = Database(make_settings(**{**urls, "database_url": proxy.url}))
        with pytest.raises(UnavailableError):  # noqa: PT012 - the failing transaction is the statement
            async with database.transaction("acme") as connection:
                await insert_note(connection, "acme", "1")
                proxy.cut()
                await insert_note(connection, "acme", "2")
        proxy.heal()
        async with database.read("acme") as connection:
            assert await list_notes(connection) == []
        await database.close()


async def test_a_value_that_no_column_takes_is_the_callers_fault(database: Database) -> None:
    with pytest.raises(InvalidArgumentError):
        async with database.transaction("acme") as connection:
            await insert_note(connection, "acme", "\0")


async def test_a_deadlock_is_aborted_not_a_fault(database: Database) -> None:
    async def lock_both(first: str, second: str, arrived: asyncio.Barrier) -> None:
        async with database.transaction("acme") as connection:
            await lock_tenant(connection, first)
            await arrived.wait()
            await lock_tenant(connection, second)

    barrier = asyncio.Barrier(2)
    results = await asyncio.gather(
        lock_both("a", "b", barrier), lock_both("b", "a", barrier), return_exceptions=True
    )
    (failure,) = [result for result in results if result is not None]
    assert isinstance(failure, AbortedError)


async def test_a_statement_that_takes_too_long_is_cancelled(settings: ServiceSettings) -> None:
    database = Database(settings.model_copy(update={"statement_timeout_seconds": 0.05}))
    with pytest.raises(DeadlineExceededError):
        async with database.transaction("acme") as connection:
            await connection.execute(sa.text("select pg_sleep(60)"))
    await database.close()


async def test_a_full_pool_is_unavailable_not_an_endless_queue(settings: ServiceSettings) -> None:
    database = Database(settings.model_copy(update={"pool_size": 1, "pool_timeout_seconds": 0.05}))
    async with database.transaction("acme"):
        with pytest.raises(UnavailableError) as failure:
            await database.ping()
    assert failure.value.reason == "DATABASE_BUSY"
    await database.close()


_NOTES = sa.text("select id from notes where id <> :other order by id")


async def test_a_caller_that_gives_up_during_the_rollback_costs_no_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()
    roll_back = psycopg.AsyncConnection.rollback

    async def slowly(connection: psycopg.AsyncConnection) -> None:
        begun.set()
        await goes_on.wait()
        await roll_back(connection)

    async def refuse() -> int:
        async with database.read("acme") as connection:
            backends.append((await connection.execute(sa.text("select pg_backend_pid()"))).scalar_one())
            raise InvalidArgumentError("INVALID_ARGUMENT", "no")

    def is_all_back() -> bool:
        return str(database._app.pool.status()).endswith("Current Checked out connections: 0")

    backends: list[int] = []
    with pytest.raises(InvalidArgumentError):
        await refuse()
    monkeypatch.setattr(psycopg.AsyncConnection, "rollback", slowly)
    call = asyncio.create_task(refuse())
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    monkeypatch.undo()
    goes_on.set()
    await eventually(is_all_back)
    with pytest.raises(InvalidArgumentError):
        await refuse()
    assert len(set(backends)) == 1
    assert len(backends) == 3
    assert caplog.records == []


async def test_a_fetch_sees_its_own_tenant_only_and_leaves_no_tenant_behind(database: Database) -> None:
    for tenant in ("acme", "rival"):
        async with database.transaction(tenant) as connection:
            await insert_note(connection, tenant, f"of {tenant}")
    for tenant in ("acme", "rival", "acme"):
        assert await database.fetch(tenant, _NOTES, {"other": ""}) == [(f"of {tenant}",)]
    assert await database.fetch("nobody", _NOTES, {"other": ""}) == []


async def test_fetches_at_once_do_not_mix(database: Database) -> None:
    tenants = [f"t{number}" for number in range(20)]
    for tenant in tenants:
        async with database.transaction(tenant) as connection:
            await insert_note(connection, tenant, tenant)
    found = await asyncio.gather(*(database.fetch(tenant, _NOTES, {"other": ""}) for tenant in tenants * 5))
    assert found == [[(tenant,)] for tenant in tenants * 5]


async def test_a_fetch_writes_nothing(database: Database) -> None:
    insert = sa.text("insert into notes (tenant_id, id, text) values ('acme', :id, '') returning id")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await database.fetch("acme", insert, {"id": "1"})
    assert await database.fetch("acme", _NOTES, {"other": ""}) == []


async def test_a_fetch_survives_that_its_connections_died(database: Database, urls: dict[str, str]) -> None:
    assert await database.fetch("acme", _NOTES, {"other": ""}) == []
    name = urls["database_url"].rsplit("/", 1)[1]
    async with await psycopg.AsyncConnection.connect(admin_url(name), autocommit=True) as admin:
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
            [name],
        )
    assert await database.fetch("acme", _NOTES, {"other": ""}) == []


_INSERT = sa.text("""
    insert into notes (tenant_id, id, text) values (:tenant_id, :id, '') on conflict do nothing returning id
""")


async def test_a_write_that_returns_rows_has_written_its_events(database: Database) -> None:
    told: list[str] = []
    database.on_appended(lambda: told.append("appended"))
    event, parameters = sample_event("x"), {"tenant_id": "acme", "id": "1"}
    with context.bind(RequestContext("acme", "", "", "")) as request:
        assert await database.write("acme", _INSERT, parameters, [event]) == [("1",)]
        assert await database.write("acme", _INSERT, parameters, [event]) == []
    assert (told, request.write_tokens) == (["appended"], [event.token])
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1"]


async def test_events_that_no_service_receives_wake_the_relay_and_give_no_token(database: Database) -> None:
    told: list[str] = []
    database.on_appended(lambda: told.append("appended"))
    with context.bind(RequestContext("acme", "", "", "")) as request:
        async with database.transaction("acme") as connection:
            await outbox.append(connection, [sample_event("x")], is_awaited=False)
    assert (told, request.write_tokens) == (["appended"], [])


async def test_a_write_reaches_no_other_tenant(database: Database) -> None:
    await database.write("acme", _INSERT, {"tenant_id": "acme", "id": "1"}, [])
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        await database.write("rival", _INSERT, {"tenant_id": "acme", "id": "2"}, [])
    assert await database.write("rival", sa.text("delete from notes returning id"), {}, []) == []
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1"]


async def test_more_writes_at_once_than_connections_are_unavailable_not_an_endless_queue(
    settings: ServiceSettings,
) -> None:
    database = Database(settings.model_copy(update={"pool_timeout_seconds": 0.05}))
    sleep = sa.text("select 1 from (select pg_sleep(0.5)) as slept")
    results = await asyncio.gather(
        *(database.write("acme", sleep, {}, []) for _ in range(20)), return_exceptions=True
    )
    assert {getattr(result, "reason", "") for result in results} == {"", "DATABASE_BUSY"}
    await database.close()
