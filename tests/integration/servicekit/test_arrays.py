"""Lists arrive in the database as psycopg itself would write them."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from servicekit.database import Database
from servicekit.errors import InvalidArgumentError

_NOW = dt.datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=dt.timezone(dt.timedelta(hours=-8)))
_TEXTS = [
    "",
    " ",
    "null",
    "NULL",
    "a,b",
    "{x}",
    '"',
    "\\",
    '\\"',
    "é 漢 \u2003",
    "'",
    "%s",
    "line\nline",
    None,
]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", _TEXTS),
        ("text", [[each or "", "x"] for each in _TEXTS]),
        ("bigint", [0, -1, 2**62, None]),
        ("boolean", [True, False, None]),
        ("float8", [0.1, -1e300, float("inf"), None]),
        ("bytea", [b"", b"\x00\\\"'\xff", None]),
        ("timestamptz", [_NOW, None]),
        ("date", [dt.date(2024, 2, 29), None]),
        ("uuid", [uuid.UUID(int=5), None]),
        ("interval", [dt.timedelta(days=1, microseconds=1)]),
        ("text", []),
        ("bigint", [None]),
    ],
)
async def test_a_list_comes_back_as_it_was_given(database: Database, kind: str, values: list[Any]) -> None:
    statement = sa.text(f"select cast(:values as {kind}[])")
    async with database.read("acme") as connection:
        assert (await connection.execute(statement, {"values": values})).scalar_one() == values
    assert await database.fetch("acme", statement, {"values": values}) == [(values,)]


async def test_a_list_is_compared_with_a_column_of_its_type(database: Database) -> None:
    statement = sa.text("select n from generate_series(1, 5) as n where n = any(:chosen)")
    assert await database.fetch("acme", statement, {"chosen": [2, 4, 9]}) == [(2,), (4,)]


async def test_nul_in_a_list_is_refused(database: Database) -> None:
    with pytest.raises(InvalidArgumentError):
        await database.fetch("acme", sa.text("select cast(:values as text[])"), {"values": ["a\0b"]})
