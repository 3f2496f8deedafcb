"""The queries on projects."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from instance_service.store.tables import instances, projects
from servicekit.database import Connection

_LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"
_DELETE_EMPTIED = sa.text("""
    delete from projects
    where tenant_id = :tenant_id and project_id = any(cast(:project_ids as uuid[])) and state = 'deleting'
        and not exists (
            select from instances where instances.tenant_id = :tenant_id
                and instances.project_id = projects.project_id and instances.owner_instance_id is null
        )
""")

_LOCATE = sa.text("""
    select cast(instance_id as text), cast(project_id as text) from instances
    where tenant_id = :tenant_id and instance_id = any(cast(:ids as uuid[]))
    union all
    select cast(project_id as text), cast(project_id as text) from projects
    where tenant_id = :tenant_id and project_id = any(cast(:ids as uuid[]))
""")


async def insert_project(connection: Connection, row: dict[str, Any]) -> bool:
    """Create a project; return False if a project that is not deleted has the name."""
    statement = insert(projects).values(row)
    statement = statement.on_conflict_do_nothing(
        index_elements=[projects.c.tenant_id, projects.c.name],
        index_where=projects.c.state == sa.literal_column("'active'"),
    )
    return (await connection.execute(statement.returning(projects.c.name))).first() is not None


async def update_project(
    connection: Connection, tenant_id: str, project_id: str, **values: str | bytes
) -> None:
    """Update columns of one project."""
    await connection.execute(
        sa.update(projects)
        .where(projects.c.tenant_id == tenant_id, projects.c.project_id == project_id)
        .values(values)
    )


async def delete_emptied(connection: Connection, tenant_id: str, project_ids: Collection[str]) -> None:
    """Remove those of the projects that are being deleted and are empty; the caller must hold the tenant's lock."""
    parameters = {"tenant_id": tenant_id, "project_ids": sorted(project_ids)}
    await connection.execute(_DELETE_EMPTIED, parameters)


async def get_project(
    connection: Connection, tenant_id: str, project_id: str = "", name: str = ""
) -> bytes | None:
    """Return a project, serialized, by its id or name; if several had the name, the live one or else the newest."""
    statement = sa.select(projects.c.snapshot).where(projects.c.tenant_id == tenant_id)
    statement = statement.where(
        projects.c.project_id == project_id if project_id else projects.c.name == name
    )
    statement = statement.order_by(projects.c.state, projects.c.create_time.desc()).limit(1)
    return (await connection.execute(statement)).scalar_one_or_none()


async def locate(connection: Connection, tenant_id: str, ids: Collection[str]) -> dict[str, str]:
    """Return the project of each id that is an instance's or a project's."""
    rows = (await connection.execute(_LOCATE, {"tenant_id": tenant_id, "ids": sorted(ids)})).all()
    return {row[0]: row[1] for row in rows}


async def is_name_taken(connection: Connection, tenant_id: str, name: str, except_id: str) -> bool:
    """Return whether another live project has the name."""
    statement = sa.select(sa.literal(1)).where(
        projects.c.tenant_id == tenant_id,
        projects.c.name == name,
        projects.c.state == "active",
        projects.c.project_id != except_id,
    )
    return (await connection.execute(statement.limit(1))).first() is not None


async def list_projects(
    connection: Connection,
    tenant_id: str,
    after: tuple[str, str],
    limit: int,
    only: Collection[str] | None = None,
) -> Sequence[sa.Row[Any]]:
    """Return (name, id, serialized project) by name after a position; without an id, after all projects of that name.

    With `only`, others than these projects are left out.
    """
    name, project_id = after
    position = sa.tuple_(sa.literal(name), sa.cast(project_id or _LAST_ID, projects.c.project_id.type))
    statement = (
        sa.select(projects.c.name, projects.c.project_id, projects.c.snapshot)
        .where(
            projects.c.tenant_id == tenant_id, sa.tuple_(projects.c.name, projects.c.project_id) > position
        )
        .order_by(projects.c.name, projects.c.project_id)
        .limit(limit)
    )
    if only is not None:
        statement = statement.where(projects.c.project_id.in_(sorted(only)))
    return (await connection.execute(statement)).all()


async def list_contents(connection: Connection, tenant_id: str, project_id: str) -> list[str]:
    """Return the ids of a project's instances that are not being deleted, without components."""
    statement = sa.select(instances.c.instance_id).where(
        instances.c.tenant_id == tenant_id,
        instances.c.project_id == project_id,
        instances.c.owner_instance_id.is_(None),
        instances.c.state != "deleting",
    )
    return list((await connection.execute(statement.order_by(instances.c.name))).scalars())
