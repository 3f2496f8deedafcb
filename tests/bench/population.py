"""Many instances by SQL: a few made through the API, multiplied with every row that belongs to them.

A copy has ids and a name of its own, also inside its serialized messages; whatever it reads, the original read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg

_DIGITS = 7
# Coprime to the number of names: copies made one after the other lie far apart in the order of names.
_STRIDE = 6_700_417
_COLUMNS = """
    select column_name, udt_name from information_schema.columns
    where table_schema = 'public' and table_name = %s order by ordinal_position
"""
_TABLES = """
    select table_name from information_schema.columns
    where table_schema = 'public' and column_name = 'instance_id' order by table_name
"""
_INDEXES = """
    select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index
    where indrelid = any(%s::regclass[])
        and not exists (select from pg_constraint where conindid = indexrelid)
"""
_FAMILY = """
    select instance_id::text from instances where instance_id = %(id)s or owner_instance_id = %(id)s
    union select prefect_deployment_id from flows where instance_id = %(id)s and prefect_deployment_id <> ''
"""


class Template(NamedTuple):
    """An instance of which this many copies are wanted; its name begins with `name_of(0)`."""

    instance_id: str
    copies: int


def name_of(number: int) -> str:
    """Return how the name of a copy begins."""
    return f"i{number:0{_DIGITS}}"


def copy_id(original: str) -> str:
    """Return the SQL of an id in the copy of this `number`."""
    return f"md5(({original})::text || '/' || number)::uuid"


async def multiply(database_url: str, templates: Sequence[Template]) -> None:
    """Copy instances in a service's database, as its superuser; statistics are up to date afterwards."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        # No foreign key is checked: what a copy refers to is copied too, or is what the original refers to.
        await connection.execute("set session_replication_role = replica")
        await connection.execute("set synchronous_commit = off")
        await connection.execute("set maintenance_work_mem = '512MB'")
        tables = [row[0] for row in await (await connection.execute(_TABLES)).fetchall()]
        async with connection.transaction():
            indexes = await (await connection.execute(_INDEXES, [tables])).fetchall()
            for name, _ in indexes:
                await connection.execute(f"drop index {name}".encode())
            for template in templates:
                found = await connection.execute(_FAMILY, {"id": template.instance_id})
                family = [row[0] for row in await found.fetchall()]
                for table in tables:
                    await _copy(connection, table, family, template.copies)
            for _, definition in indexes:
                await connection.execute(definition.encode())
        await connection.execute(f"vacuum (analyze) {', '.join(tables)}".encode())
        await connection.execute("checkpoint")


async def _copy(connection: psycopg.AsyncConnection, table: str, family: Sequence[str], copies: int) -> None:
    columns = await (await connection.execute(_COLUMNS, [table])).fetchall()
    copied = ", ".join(_copied(column, kind, family) for column, kind in columns)
    names = ", ".join(column for column, _ in columns)
    statement = f"""
        insert into {table} ({names}) select {copied}
        from {table} cross join lateral (
            select number, 'i' || lpad((number * {_STRIDE} %% {10**_DIGITS})::text, {_DIGITS}, '0') as new_name
            from generate_series(1, %(copies)s::bigint) as number
        ) as copy where instance_id = any(%(family)s::uuid[])
    """  # noqa: S608 - columns of our own tables
    await connection.execute(statement.encode(), {"copies": copies, "family": family})


def _copied(column: str, kind: str, family: Sequence[str]) -> str:
    """Return the expression for a column of a copy."""
    if kind == "uuid":
        return f"case when {column} = any(%(family)s::uuid[]) then {copy_id(column)} else {column} end"
    if column == "prefect_deployment_id":
        return f"case when {column} = any(%(family)s::text[]) then {copy_id(column)}::text else {column} end"
    if column == "name":
        return f"replace(name, '{name_of(0)}', new_name)"
    if kind != "bytea":
        return column
    text = f"encode({column}, 'hex')"
    for one in family:
        text = f"replace({text}, '{one.encode().hex()}', {_hex(copy_id(repr(one)) + '::text')})"
    return f"decode(replace({text}, '{name_of(0).encode().hex()}', {_hex('new_name')}), 'hex')"


def _hex(text: str) -> str:
    return f"encode(convert_to({text}, 'UTF8'), 'hex')"
