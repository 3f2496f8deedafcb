"""Read and write the tracebacks of failed runs."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from run_service.store.tables import tracebacks
from servicekit.database import Connection


async def insert_traceback(connection: Connection, tenant_id: str, run_id: str, text: str) -> None:
    """Insert the traceback of a run; one that exists stays as it is."""
    values = {"tenant_id": tenant_id, "run_id": run_id, "traceback": text}
    await connection.execute(insert(tracebacks).values(values).on_conflict_do_nothing())


async def get_traceback(connection: Connection, tenant_id: str, run_id: str) -> str:
    """Return the traceback of a run; it is empty if the run has none."""
    statement = sa.select(tracebacks.c.traceback).where(
        tracebacks.c.tenant_id == tenant_id, tracebacks.c.run_id == run_id
    )
    return (await connection.execute(statement)).scalar_one_or_none() or ""
