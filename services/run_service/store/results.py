"""Write the results that the kinds of runs add."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message

from run_service.store.records import driver_value, message_json
from run_service.store.tables import extensions
from servicekit.database import Connection
from servicekit.direct import as_text, send


async def update_result(
    connection: Connection, tenant_id: str, run_id: str, kind: str, result: Message
) -> None:
    """Store the result that the kind of the run adds."""
    table = extensions[kind]
    values = {
        name: driver_value(table.c[name], _read_number(table.c[name].type, value))
        for name, value in _fields_of(result).items()
    }
    if values:
        given = {"tenant_id": tenant_id, "run_id": run_id, **values}
        await send(connection, _update(kind, tuple(sorted(values))), given)


@functools.cache
def _update(kind: str, names: tuple[str, ...]) -> sa.TextClause:
    """Return the statement that sets these columns of a result."""
    table = extensions[kind]
    return as_text(
        sa.update(table)
        .where(table.c.tenant_id == sa.bindparam("tenant_id"), table.c.run_id == sa.bindparam("run_id"))
        .values({name: sa.bindparam(name, type_=table.c[name].type) for name in names})
    )


def _read_number(kind: sa.types.TypeEngine[Any], value: Any) -> Any:
    """Convert what JSON has as a text: a long whole number, and a figure that is not defined (NaN)."""
    if isinstance(kind, sa.BigInteger):
        return int(value)
    return float(value) if isinstance(kind, sa.Double) else value


def _fields_of(result: Message) -> dict[str, Any]:
    fields: dict[str, Any] = message_json(result)
    return fields
