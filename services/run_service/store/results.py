"""Write the results that the kinds of runs add."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message

from run_service.store.records import message_json
from run_service.store.tables import extensions
from servicekit.database import Connection


async def update_result(
    connection: Connection, tenant_id: str, run_id: str, kind: str, result: Message
) -> None:
    """Store the result that the kind of the run adds."""
    table = extensions[kind]
    values = {name: _read_number(table.c[name].type, value) for name, value in _fields_of(result).items()}
    if values:
        statement = (
            sa.update(table).where(table.c.tenant_id == tenant_id, table.c.run_id == run_id).values(values)
        )
        await connection.execute(statement)


def _read_number(kind: sa.types.TypeEngine[Any], value: Any) -> Any:
    """Convert what JSON has as a text: a long whole number, and a figure that is not defined (NaN)."""
    if isinstance(kind, sa.BigInteger):
        return int(value)
    return float(value) if isinstance(kind, sa.Double) else value


def _fields_of(result: Message) -> dict[str, Any]:
    fields: dict[str, Any] = message_json(result)
    return fields
