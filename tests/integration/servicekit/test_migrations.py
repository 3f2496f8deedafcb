"""A service's schema is made once, however many replicas start."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.pool import NullPool

from devstack.postgres import Postgres
from integration.servicekit.sample import SAMPLE_PACKAGE
from servicekit import migrations, schema
from support.postgres import admin_url, create_bare_database


@pytest.fixture
async def bare_urls(postgres_server: Postgres) -> AsyncIterator[dict[str, str]]:
    name = f"bare_{uuid.uuid4().hex[:12]}"
    yield await create_bare_database(name, "sample")
    async with await psycopg.AsyncConnection.connect(
        postgres_server.admin_url, autocommit=True
    ) as connection:
        await connection.execute(f"drop database {name} with (force)")


async def test_concurrent_starters_migrate_once_and_all_succeed(bare_urls: dict[str, str]) -> None:
    owner = bare_urls["database_owner_url"]
    await asyncio.gather(*(migrations.migrate(owner, SAMPLE_PACKAGE) for _ in range(3)))
    await migrations.migrate(owner, SAMPLE_PACKAGE)  # the next start finds nothing to do
    async with await psycopg.AsyncConnection.connect(owner.replace("+psycopg", "")) as connection:
        found = await connection.execute("select version_num from alembic_version")
        assert await found.fetchall() == [("202601070000",)]


async def test_without_the_lock_concurrent_starters_collide(
    bare_urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LOCK", sa.text("select 1"))
    owner = bare_urls["database_owner_url"]
    results = await asyncio.gather(
        *(migrations.migrate(owner, SAMPLE_PACKAGE) for _ in range(8)), return_exceptions=True
    )
    assert any(isinstance(result, sa.exc.DBAPIError) for result in results)


async def test_a_starter_waits_for_another_that_is_migrating(bare_urls: dict[str, str]) -> None:
    owner = bare_urls["database_owner_url"].replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(owner, autocommit=True) as other:
        await other.execute(str(migrations._LOCK))
        starting = asyncio.create_task(migrations.migrate(bare_urls["database_owner_url"], SAMPLE_PACKAGE))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(starting), 0.5)
        found = await other.execute("select count(*) from pg_class where relname = 'outbox'")
        assert await found.fetchone() == (0,)
    await starting


def test_migrated_tables_match_the_schema(urls: dict[str, str]) -> None:
    engine = sa.create_engine(urls["database_owner_url"], poolclass=NullPool)
    with engine.connect() as connection:
        differences = compare_metadata(
            MigrationContext.configure(connection, opts={"include_name": _is_infrastructure}), schema.metadata
        )
    assert differences == []


def _is_infrastructure(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or name in schema.metadata.tables


async def test_the_tenant_leads_every_primary_key(urls: dict[str, str]) -> None:
    name = urls["database_url"].rpartition("/")[2]
    async with await psycopg.AsyncConnection.connect(admin_url(name)) as connection:
        rows = await connection.execute(
            "select c.relname, a.attname from pg_index i join pg_class c on c.oid = i.indrelid "
            "join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0] "
            "where i.indisprimary and c.relnamespace = 'public'::regnamespace and c.relname <> 'alembic_version'"
        )
        keys: dict[str, str] = dict(await rows.fetchall())
    assert set(keys.values()) == {"tenant_id"}
    assert len(keys) == 10


async def test_a_package_without_migrations_is_a_clear_error(bare_urls: dict[str, str]) -> None:
    with pytest.raises(ModuleNotFoundError, match="is not a package"):
        await migrations.migrate(bare_urls["database_owner_url"], "servicekit.clock")
