"""A transaction outlives a long computation beside it."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from devstack.postgres import Postgres
from servicekit import awake
from servicekit.database import Connection
from support.lineage_service import lineage_database

_IDLE = sa.text("set local idle_in_transaction_session_timeout = '500ms'")
_ONE = sa.text("select 1")


async def _compute() -> str:
    await asyncio.sleep(1.5)  # three times as long as the transaction may be idle
    return "done"


async def test_a_transaction_outlives_a_computation(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    del postgres_server
    monkeypatch.setattr(awake, "_SECONDS", 0.05)
    async with lineage_database() as database, database.read("tenant") as connection:
        await connection.execute(_IDLE)
        assert await awake.compute(connection, _compute()) == "done"
        assert (await connection.execute(_ONE)).scalar_one() == 1


async def test_an_idle_transaction_ends(postgres_server: Postgres) -> None:
    del postgres_server

    async def idle(connection: Connection) -> None:
        await connection.execute(_IDLE)
        await _compute()
        await connection.execute(_ONE)

    async with lineage_database() as database:
        with pytest.raises(sa.exc.DBAPIError, match="idle-in-transaction"):
            async with database.read("tenant") as connection:
                await idle(connection)


async def test_the_error_of_a_computation_is_raised(postgres_server: Postgres) -> None:
    del postgres_server

    async def fail() -> None:
        raise ValueError("no")

    async with lineage_database() as database, database.read("tenant") as connection:
        with pytest.raises(ValueError, match="no"):
            await awake.compute(connection, fail())
