"""The id of the installation that owns this database; everything it has in outside systems carries the id."""

from __future__ import annotations

import sqlalchemy as sa

from servicekit.database import Connection

_INSERT = sa.text(
    "insert into installation (installation_id) values (cast(:installation_id as uuid)) on conflict do nothing"
)
_GET = sa.text("select cast(installation_id as text) from installation")


async def get_or_create(connection: Connection, new_id: str) -> str:
    """Return the installation's id; the first start ever stores `new_id`. Use the infra login."""
    await connection.execute(_INSERT, {"installation_id": new_id})
    return str((await connection.execute(_GET)).scalar_one())
