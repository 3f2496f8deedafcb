"""Find the project of runs and instances."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from run_service.store.tables import runs
from servicekit import locations as copies
from servicekit.database import Connection
from servicekit.schema import locations


async def locate(connection: Connection, tenant_id: str, ids: Collection[str]) -> dict[str, str]:
    """Return the project of each of the ids that is a run's or an instance's whose project is known."""
    statement = (
        sa.select(runs.c.run_id, locations.c.project_id)
        .join(
            locations,
            (locations.c.tenant_id == runs.c.tenant_id) & (locations.c.resource_id == runs.c.instance_id),
        )
        .where(runs.c.tenant_id == tenant_id, runs.c.run_id.in_(sorted(ids)))
    )
    found = {row.run_id: row.project_id for row in await connection.execute(statement)}
    return found | await copies.locate(connection, tenant_id, ids)
