"""All replicas of a service seal with one key, and no request can read it."""

import psycopg
import pytest

from servicekit.database import Database
from servicekit.signing import load_signer


async def test_a_replica_opens_texts_that_another_replica_sealed(database: Database) -> None:
    first, second = await load_signer(database), await load_signer(database)
    assert second.open(first.seal(b"position", "purpose"), "purpose") == b"position"


async def test_a_database_has_one_key_of_32_bytes(urls: dict[str, str]) -> None:
    owner = urls["database_owner_url"].replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(owner) as connection:
        await connection.execute("alter table signing_key no force row level security")
        rows = await (await connection.execute("select key from signing_key")).fetchall()
        await connection.rollback()
    assert [len(key) for (key,) in rows] == [32]


@pytest.mark.parametrize(
    "statement",
    ["select key from signing_key", "update signing_key set key = ''", "delete from signing_key"],
)
@pytest.mark.parametrize("login", ["database_url", "database_owner_url"])
async def test_the_key_is_hidden_from_logins_that_serve_requests(
    urls: dict[str, str], login: str, statement: str
) -> None:
    async with await psycopg.AsyncConnection.connect(urls[login].replace("+psycopg", "")) as connection:
        try:
            found = await connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            return
        assert found.rowcount == 0


@pytest.mark.parametrize("statement", ["update signing_key set key = ''", "delete from signing_key"])
async def test_the_infrastructure_login_cannot_change_the_key(urls: dict[str, str], statement: str) -> None:
    infra = urls["database_infra_url"].replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(infra) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(statement)
