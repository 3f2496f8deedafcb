"""Queries on projects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from instance_service.store.tables import projects


async def insert_project(connection: AsyncConnection, row: dict[str, Any]) -> bool:
    """Create a project; return False where the name is taken."""
    statement = insert(projects).values(row).on_conflict_do_nothing(constraint="uq_projects_name")
    return (await connection.execute(statement.returning(projects.c.name))).first() is not None


async def get_project(
    connection: AsyncConnection, tenant_id: str, project_id: str = "", name: str = ""
) -> bytes | None:
    """Return a project, serialized, by its id or name."""
    statement = sa.select(projects.c.snapshot).where(projects.c.tenant_id == tenant_id)
    statement = statement.where(
        projects.c.project_id == project_id if project_id else projects.c.name == name
    )
    return (await connection.execute(statement)).scalar_one_or_none()


async def list_projects(
    connection: AsyncConnection, tenant_id: str, after: str, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return (name, serialized project) by name, after a name."""
    statement = (
        sa.select(projects.c.name, projects.c.snapshot)
        .where(projects.c.tenant_id == tenant_id, projects.c.name > after)
        .order_by(projects.c.name)
        .limit(limit)
    )
    return (await connection.execute(statement)).all()
