"""The tables are what the migrations make, and row-level security guards each of them."""

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from devstack.postgres import Postgres
from servicekit import schema
from status_service.store import tables
from support.postgres import service_database

_OTHERS = {*schema.metadata.tables, "alembic_version"}


async def test_tables_equal_migrations(postgres_server: Postgres) -> None:
    del postgres_server
    async with service_database("status", "status_service") as urls:
        engine = sa.create_engine(urls["database_owner_url"], poolclass=sa.NullPool)
        with engine.connect() as connection:
            options = {"include_object": lambda _, name, kind, *__: kind != "table" or name not in _OTHERS}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, tables.metadata) == []
        engine.dispose()


@pytest.mark.parametrize("table", sorted(tables.metadata.tables))
async def test_without_a_tenant_no_row_is_seen_nor_written(postgres_server: Postgres, table: str) -> None:
    del postgres_server
    async with service_database("status", "status_service") as urls:
        engine = sa.create_engine(urls["database_url"], poolclass=sa.NullPool)
        with engine.connect() as connection:
            assert connection.execute(sa.text(f"select count(*) from {table}")).scalar_one() == 0  # noqa: S608 - our own names
            forced = connection.execute(
                sa.text("select relrowsecurity and relforcerowsecurity from pg_class where relname = :table"),
                {"table": table},
            )
            assert forced.scalar_one()
            with pytest.raises(sa.exc.DBAPIError, match="row-level security"):
                connection.execute(
                    sa.text(
                        "insert into tenant_revisions (tenant_id, revision) values ('default', 1)"
                        if table == "tenant_revisions"
                        else f"insert into {table} select * from jsonb_populate_record(null::{table}, :row)"  # noqa: S608 - our own names
                    ),
                    {} if table == "tenant_revisions" else {"row": '{"tenant_id": "default"}'},
                )
        engine.dispose()
