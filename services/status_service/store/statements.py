"""The statements that all tables share: INSERT of many rows, and SELECT of some instances."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from servicekit.database import Connection
from servicekit.direct import send
from servicekit.schema import UUID_TEXT


def insert_of(table: sa.Table, *, is_upsert: bool, prefix: str = "") -> sa.TextClause:
    """Return one INSERT of any number of rows, given as one array for each column, whose name follows the prefix.

    An array of arrays cannot be unnested row by row: those columns travel as comma-separated words.
    """
    columns = [column for column in table.columns if column.name != "tenant_id"]
    names = ", ".join(column.name for column in columns)
    arrays, values = [], []
    for column in columns:
        is_array = isinstance(column.type, postgresql.ARRAY)
        is_text = is_array or isinstance(column.type, sa.Text)  # without its collation
        type_name = "text" if is_text else column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
        arrays.append(f"cast(:{prefix}{column.name} as {type_name}[])")
        values.append(f"string_to_array({column.name}, ',')" if is_array else column.name)
    keys = ", ".join(column.name for column in table.primary_key)
    updates = ", ".join(
        f"{column.name} = excluded.{column.name}" for column in columns if not column.primary_key
    )
    return sa.text(
        f"insert into {table.name} (tenant_id, {names}) select :tenant_id, {', '.join(values)} "  # noqa: S608 - our own names
        f"from unnest({', '.join(arrays)}) as given ({names})"
        + (f" on conflict ({keys}) do update set {updates}" if is_upsert else "")
    )


async def insert(
    connection: Connection, statement: sa.TextClause, tenant_id: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Send an INSERT of `insert_of`."""
    if rows:
        await send(connection, statement, {"tenant_id": tenant_id, **arrays_of(list(rows[0]), rows)})


def arrays_of(
    names: Iterable[str], rows: Sequence[Mapping[str, Any]], prefix: str = ""
) -> dict[str, list[Any]]:
    """Return the columns of rows as an INSERT of `insert_of` takes them."""
    return {
        f"{prefix}{name}": [
            ",".join(row[name]) if isinstance(row[name], tuple) else row[name] for row in rows
        ]
        for name in names
    }


def select_of(table: sa.Table, tenant_id: str, instance_ids: Collection[str]) -> sa.Select[Any]:
    """Return the SELECT of the rows of some instances."""
    return sa.select(table).where(
        table.c.tenant_id == tenant_id, table.c.instance_id == any_of(sorted(instance_ids))
    )


def any_of(values: Sequence[str], kind: Any = UUID_TEXT) -> sa.ColumnElement[Any]:
    """Return a right side for `==` that is true of each of the values."""
    return sa.any_(sa.bindparam(None, list(values), type_=postgresql.ARRAY(kind)))
