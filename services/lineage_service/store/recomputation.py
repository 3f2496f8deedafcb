"""The queries that go through all flows of all tenants, part by part."""

from __future__ import annotations

import sqlalchemy as sa

from servicekit.database import Connection

_LIST_TENANTS = sa.text("select tenant_id from lineage_revisions order by tenant_id")
_LIST_PART = sa.text("""
    select flow_id from flows where tenant_id = :tenant_id and flow_id > :after order by flow_id limit :most
""")


async def list_tenants(connection: Connection) -> list[str]:
    """Return the tenants that have flows; use the infra login."""
    return list((await connection.execute(_LIST_TENANTS)).scalars())


async def list_part(connection: Connection, tenant_id: str, after: int, most: int) -> list[int]:
    """Return the ids of the next flows after an id, in their order."""
    parameters = {"tenant_id": tenant_id, "after": after, "most": most}
    return list((await connection.execute(_LIST_PART, parameters)).scalars())
