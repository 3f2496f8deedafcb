"""The queries on bindings of roles; the copies of the other services are written by servicekit."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from servicekit.database import Connection
from servicekit.schema import role_bindings as table


async def get_binding(connection: Connection, tenant_id: str, actor: str, project_id: str) -> bytes | None:
    """Return a binding, serialized, granted or revoked; None if there never was one."""
    query = sa.select(table.c.snapshot).where(
        table.c.tenant_id == tenant_id, table.c.actor == actor, table.c.scope == project_id
    )
    return (await connection.execute(query)).scalar_one_or_none()


async def list_granted(
    connection: Connection,
    tenant_id: str,
    actor: str,
    project_id: str,
    after: tuple[str, str] | None,
    limit: int,
) -> Sequence[bytes]:
    """Return bindings that are not revoked, by actor and project, after a position; empty texts select all."""
    query = sa.select(table.c.snapshot).where(table.c.tenant_id == tenant_id, table.c.role != "")
    if actor:
        query = query.where(table.c.actor == actor)
    if project_id:
        query = query.where(table.c.scope == project_id)
    if after is not None:
        query = query.where(sa.tuple_(table.c.actor, table.c.scope) > sa.tuple_(*map(sa.literal, after)))
    query = query.order_by(table.c.actor, table.c.scope).limit(limit)
    return (await connection.execute(query)).scalars().all()


async def list_revisions(
    connection: Connection, tenant_id: str, after: str, limit: int
) -> Sequence[tuple[str, int]]:
    """Return (id, revision) of bindings in the order of their ids, after an id; empty: from the first."""
    query = sa.select(table.c.binding_id, table.c.revision).where(table.c.tenant_id == tenant_id)
    if after:
        query = query.where(table.c.binding_id > after)
    rows = (await connection.execute(query.order_by(table.c.binding_id).limit(limit))).all()
    return [(row.binding_id, row.revision) for row in rows]


async def list_bindings(
    connection: Connection, tenant_id: str, binding_ids: Collection[str]
) -> Sequence[bytes]:
    """Return the bindings with these ids, serialized."""
    query = sa.select(table.c.snapshot).where(
        table.c.tenant_id == tenant_id, table.c.binding_id.in_(sorted(binding_ids))
    )
    return (await connection.execute(query)).scalars().all()
