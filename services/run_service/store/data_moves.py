"""Read and write the move of a tenant's data that is under way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from run_service.store.tables import data_moves
from servicekit.database import Connection

# The trigger of runs takes it shared.
_LOCK = sa.text("select pg_advisory_xact_lock(hashtextextended('data move of ' || :tenant_id, 0))")


@dataclass(frozen=True)
class Move:
    """A move that is under way."""

    from_root: str
    to_root: str
    begin_time: datetime
    actor: str
    is_switched: bool = False


async def lock_moves(connection: Connection, tenant_id: str) -> None:
    """Wait for the transactions that insert runs, and keep others from it until the end of this one."""
    await connection.execute(_LOCK, {"tenant_id": tenant_id})


async def get_move(connection: Connection, tenant_id: str) -> Move | None:
    """Return the move that is under way."""
    columns = (data_moves.c[name] for name in ("from_root", "to_root", "begin_time", "actor", "is_switched"))
    row = (
        await connection.execute(sa.select(*columns).where(data_moves.c.tenant_id == tenant_id))
    ).one_or_none()
    return None if row is None else Move(*row)


async def insert_move(connection: Connection, tenant_id: str, move: Move) -> None:
    """Begin a move; runs are held from the commit on."""
    values = {"from_root": move.from_root, "to_root": move.to_root, "actor": move.actor}
    await connection.execute(
        insert(data_moves).values(tenant_id=tenant_id, begin_time=move.begin_time, **values)
    )


async def mark_switched(connection: Connection, tenant_id: str) -> None:
    """Record that data is read at the new place."""
    await connection.execute(
        sa.update(data_moves).where(data_moves.c.tenant_id == tenant_id).values(is_switched=True)
    )


async def delete_move(connection: Connection, tenant_id: str) -> None:
    """End the move; runs begin again from the commit on."""
    await connection.execute(sa.delete(data_moves).where(data_moves.c.tenant_id == tenant_id))
