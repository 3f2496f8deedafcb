"""Which installation this database is: what outside systems hold for it carries the id; on the infra login."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

_INSERT = sa.text(
    "insert into installation (installation_id) values (cast(:installation_id as uuid)) on conflict do nothing"
)
_GET = sa.text("select cast(installation_id as text) from installation")


async def get_or_create(connection: AsyncConnection, new_id: str) -> str:
    """Return the id: the new one at the very first start, else the one of the first start."""
    await connection.execute(_INSERT, {"installation_id": new_id})
    return str((await connection.execute(_GET)).scalar_one())
