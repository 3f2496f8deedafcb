"""The schema: the tables that the migrations create equal those that the queries expect."""

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from devstack.postgres import Postgres
from run_service.store.tables import metadata
from servicekit import schema
from support.postgres import service_database

_INFRASTRUCTURE = set(schema.metadata.tables)


async def test_models_equal_migrations(postgres_server: Postgres) -> None:
    del postgres_server
    async with service_database("run", "run_service") as urls:
        engine = sa.create_engine(urls["database_owner_url"], poolclass=sa.NullPool)
        with engine.connect() as connection:

            def is_ours(_object: object, name: str | None, kind: str, *_: object) -> bool:
                return kind != "table" or name not in _INFRASTRUCTURE

            context = MigrationContext.configure(
                connection,
                opts={"include_object": is_ours, "compare_type": True, "compare_server_default": False},
            )
            assert compare_metadata(context, metadata) == []


async def test_every_table_is_under_forced_row_level_security(postgres_server: Postgres) -> None:
    del postgres_server
    async with service_database("run", "run_service") as urls:
        engine = sa.create_engine(urls["database_owner_url"], poolclass=sa.NullPool)
        with engine.connect() as connection:
            rows = connection.execute(
                sa.text("""
                    select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
                    and not (relrowsecurity and relforcerowsecurity)
                """)
            )
            assert {row.relname for row in rows} == {"alembic_version"}
