"""Read what a tenant has stored; triggers of the migration `usage` count it in the transaction that stores it."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from instance_service.store.tables import tenant_usage
from servicekit.database import Connection


class Usage(NamedTuple):
    """The instances of a tenant without components, and the bytes of what it has stored."""

    instances: int = 0
    bytes: int = 0


NO_LIMITS = Usage()


async def get_usage(connection: Connection, tenant_id: str) -> Usage:
    """Return what a tenant has stored, with the changes of this transaction."""
    statement = sa.select(tenant_usage.c.instances, tenant_usage.c.bytes).where(
        tenant_usage.c.tenant_id == tenant_id
    )
    row = (await connection.execute(statement)).one_or_none()
    return Usage(*row) if row is not None else Usage()
