"""The embedded PostgreSQL, started in every way that this machine allows."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from devstack import postgres
from devstack.postgres import Postgres
from devstack.state import State
from support.polling import eventually

WAYS = ["auto", "uid"] if os.geteuid() == 0 else ["auto"]


@pytest.fixture(params=WAYS)
async def server(state: State, request: pytest.FixtureRequest) -> AsyncIterator[Postgres]:
    async with Postgres(state, "secret", privileges=request.param) as server:
        yield server


async def ask(url: str, query: str) -> object:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(query.encode())
        row = await cursor.fetchone() if cursor.description else None
        return row[0] if row else None


async def test_it_serves_tcp_only_with_a_password(server: Postgres) -> None:
    assert await ask(server.admin_url, "show listen_addresses") == "127.0.0.1"
    assert not await ask(server.admin_url, "show unix_socket_directories")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await ask(server.admin_url.replace("secret", "guess"), "select 1")


async def test_a_service_has_its_own_database_and_three_logins(server: Postgres) -> None:
    passwords = {f"{service}_{role}": "x" for service in ("run", "lineage") for role in postgres.ROLES}
    urls = await postgres.create_service_database(server.admin_url, "run", passwords)
    others = await postgres.create_service_database(server.admin_url, "lineage", passwords)
    urls, others = (
        {role: url.replace("+psycopg", "") for role, url in found.items()} for found in (urls, others)
    )
    assert await ask(urls["owner"], "select current_database()::text") == "optaic_run"
    await ask(urls["owner"], "create table probe ()")
    for role in ("app", "infra"):
        assert await ask(urls[role], "select current_user::text") == f"run_{role}"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await ask(urls[role], "create table mine ()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await ask(urls[role], "select 1 from probe")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        await ask(others["app"].replace("optaic_lineage", "optaic_run"), "select 1")


async def test_databases_may_be_made_again_with_other_passwords(server: Postgres) -> None:
    for password in ("one", "two"):
        passwords = {f"run_{role}": password for role in postgres.ROLES}
        urls = await postgres.create_service_database(server.admin_url, "run", passwords)
        prefect = await postgres.create_prefect_database(server.admin_url, password)
    assert await ask(urls["app"].replace("+psycopg", ""), "select 1") == 1
    assert (
        await ask(
            prefect.replace("+asyncpg", ""), "select count(*) from pg_extension where extname = 'pg_trgm'"
        )
        == 1
    )


@pytest.mark.parametrize("way", WAYS)
async def test_committed_rows_survive_a_kill_and_a_new_start(state: State, way: str) -> None:
    async with Postgres(state, "secret", privileges=way) as server:
        await ask(server.admin_url, "create table kept as select 7 as value")
        first = server.process.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: server.process.pid not in {None, first} and server.process.phase == "ready")
        assert await ask(server.admin_url, "select value from kept") == 7
    async with Postgres(state, "secret", server.port, privileges=way) as again:
        assert await ask(again.admin_url, "select value from kept") == 7


async def test_a_pid_file_of_a_dead_server_does_not_stop_the_next(state: State) -> None:
    async with Postgres(state, "secret") as server:
        await ask(server.admin_url, "select 1")
    # The number belongs to a stranger by now: us.
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data}\n0\n0\n\n\n")
    async with Postgres(state, "secret", server.port) as again:
        assert await ask(again.admin_url, "select 1") == 1


async def test_a_cluster_may_be_served_another_way_the_next_time(state: State) -> None:
    for way in [*WAYS, *reversed(WAYS)]:
        async with Postgres(state, "secret", privileges=way) as server:
            assert await ask(server.admin_url, "select 1") == 1


async def test_an_interrupted_creation_is_begun_again(state: State) -> None:
    starting = asyncio.create_task(Postgres(state, "secret").start())
    await eventually((state.root / "postgres.draft").exists)
    starting.cancel()
    await asyncio.wait({starting})
    assert not (state.root / "postgres").exists()
    async with Postgres(state, "secret") as server:
        assert await ask(server.admin_url, "select 1") == 1


async def test_postgres_starts_in_a_folder_that_only_root_may_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for way in WAYS:
        async with Postgres(State(closed / way), "secret", privileges=way) as server:
            assert await ask(server.admin_url, "select 1") == 1
