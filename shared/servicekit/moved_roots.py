"""Keep this service's copy of where the data of a tenant was moved to: what is recorded below a former root is read below the new one."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from servicekit.schema import MigrationOperations, metadata, moved_roots, protect

# Roots that were moved to the old one lead on to the new one; the new one itself is a former root no more.
_LEAD_ON = sa.text("""
    update moved_roots set root = :root where tenant_id = :tenant_id and root = any(cast(:former_roots as text[]))
""")
_ADD = sa.text("""
    insert into moved_roots (tenant_id, former_root, root)
    select :tenant_id, given.former_root, :root from unnest(cast(:former_roots as text[])) as given (former_root)
    on conflict (tenant_id, former_root) do update set root = excluded.root
""")
_REMOVE = sa.text("delete from moved_roots where tenant_id = :tenant_id and former_root = root")
_LIST = sa.text(
    'select former_root, root from moved_roots where tenant_id = :tenant_id order by former_root collate "C"'
)


def create_moved_roots(op: MigrationOperations, service: str) -> None:
    """Create the table of moved roots, in a migration."""
    metadata.create_all(op.get_bind(), tables=(moved_roots,), checkfirst=False)
    protect(op, moved_roots.name, service)


def roots_of(tenant_id: sa.ColumnElement[str]) -> sa.ScalarSelect[object]:
    """Return the subquery of a tenant's moved roots, as an object of JSON: former root -> root; null without any."""
    found = sa.func.jsonb_object_agg(moved_roots.c.former_root, moved_roots.c.root, type_=JSONB)
    return sa.select(found).where(moved_roots.c.tenant_id == tenant_id).scalar_subquery()


async def list_moved_roots(connection: AsyncConnection, tenant_id: str) -> dict[str, str]:
    """Return the former roots of a tenant, and where what is recorded there lies now."""
    return {row[0]: row[1] for row in await connection.execute(_LIST, {"tenant_id": tenant_id})}


async def move_roots(
    connection: AsyncConnection, tenant_id: str, former_roots: Collection[str], root: str
) -> None:
    """Record that data was moved from a root, given in all its spellings, to another one."""
    moved = {"tenant_id": tenant_id, "former_roots": sorted(former_roots), "root": root}
    await connection.execute(_LEAD_ON, moved)
    await connection.execute(_ADD, moved)
    await connection.execute(_REMOVE, {"tenant_id": tenant_id})
