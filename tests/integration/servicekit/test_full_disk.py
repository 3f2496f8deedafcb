"""Servers whose disk is full, on real small disks: what callers are told, and what health says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from devstack.postgres import Postgres
from devstack.state import State
from servicekit.broker import Broker
from servicekit.database import Database
from servicekit.database_errors import domain_error_of
from servicekit.errors import DomainError, ResourceExhaustedError, UnavailableError
from servicekit.settings import ServiceSettings
from support.broker import NatsServer
from support.polling import eventually
from support.small_disk import SmallDisk, small_disk


def _settings(database_url: str = "unused", nats_url: str = "nats://127.0.0.1:1") -> ServiceSettings:
    return ServiceSettings(
        database_url=database_url,
        database_owner_url=database_url,
        database_infra_url=database_url,
        nats_url=nats_url,
        service_token="token",
    )


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (psycopg.errors.DiskFull, "RESOURCE_EXHAUSTED", "DATABASE_FULL"),
        (psycopg.errors.OutOfMemory, "UNAVAILABLE", "DATABASE_BUSY"),
        (psycopg.errors.TooManyConnections, "UNAVAILABLE", "DATABASE_BUSY"),
        (psycopg.errors.ConfigurationLimitExceeded, "UNAVAILABLE", "DATABASE_BUSY"),
        (psycopg.errors.InsufficientResources, "UNAVAILABLE", "DATABASE_BUSY"),
        (psycopg.errors.AdminShutdown, "UNAVAILABLE", "DATABASE_UNAVAILABLE"),
        (psycopg.errors.CrashShutdown, "UNAVAILABLE", "DATABASE_UNAVAILABLE"),
        (psycopg.errors.CannotConnectNow, "UNAVAILABLE", "DATABASE_UNAVAILABLE"),
        (psycopg.errors.IoError, "UNAVAILABLE", "DATABASE_UNAVAILABLE"),
    ],
)
def test_a_lack_of_disk_or_memory_is_not_an_internal_error(
    error: type[psycopg.Error], code: str, reason: str
) -> None:
    found = domain_error_of(error("text of the server"))
    assert isinstance(found, DomainError)
    assert (found.code, found.reason) == (code, reason)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 128) as mounted:
        yield mounted


@pytest.fixture
async def server(disk: SmallDisk) -> AsyncIterator[Postgres]:
    running = Postgres(State(disk.folder), "secret")
    await running.start()
    yield running
    await running.stop()


async def test_a_full_database_is_reported_until_it_has_room(disk: SmallDisk, server: Postgres) -> None:
    async with await psycopg.AsyncConnection.connect(server.admin_url, autocommit=True) as admin:
        await admin.execute("create table lines (text text)")
    database = Database(_settings(server.admin_url.replace("postgresql://", "postgresql+psycopg://")))
    insert = sa.text("insert into lines select repeat(md5(n::text), 20) from generate_series(1, 10000) n")
    try:
        await database.ping()
        disk.fill()
        with pytest.raises(ResourceExhaustedError, match="no room") as refusal:
            async with database.transaction("acme") as connection:
                await connection.execute(insert)
        assert refusal.value.reason == "DATABASE_FULL"
        for _ in range(2):
            with pytest.raises(ResourceExhaustedError, match="no room"):
                await database.ping()
        disk.grow(512)
        await database.ping()
        async with database.transaction("acme") as connection:
            await connection.execute(insert)
    finally:
        await database.close()


async def test_a_broker_that_takes_no_messages_is_shown(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        server = NatsServer(disk.folder)
        server.start()
        broker = Broker(_settings(nats_url=server.url), {"S": ("s.>",)})
        try:
            await broker.ready()
            await broker.ping()
            disk.fill()
            async with broker.channel() as channel:
                with pytest.raises(UnavailableError):
                    await channel.publish([("s.a", b"x" * 100_000, {})])
            with pytest.raises(UnavailableError, match="accept no messages"):
                await broker.ping()
            disk.grow(64)
            server.kill()  # by itself it does not come back: it is restarted
            server.start()

            async def is_well() -> bool:
                try:
                    async with broker.channel() as channel:
                        await channel.publish([("s.a", b"x", {})])
                    await broker.ping()
                except UnavailableError:
                    return False
                return True

            await eventually(is_well, 30)
        finally:
            await broker.close()
            server.kill()
