"""Keep this service's copy of which project each resource belongs to; nothing ever moves to another project."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from servicekit.database import Database
from servicekit.schema import MigrationOperations, locations, metadata, protect

_ADD = sa.text("""
    insert into locations (tenant_id, resource_id, project_id)
    select :tenant_id, given.id, given.project_id
    from unnest(cast(:ids as uuid[]), cast(:project_ids as uuid[])) as given (id, project_id)
    where not exists (select from locations where tenant_id = :tenant_id and resource_id = given.id)
    order by given.id
    on conflict do nothing
""")
_LOCATE = sa.text("""
    select cast(resource_id as text), cast(project_id as text) from locations
    where tenant_id = :tenant_id and resource_id = any(cast(:ids as uuid[]))
""")


def create_locations(op: MigrationOperations, service: str) -> None:
    """Create the table of locations, in a migration."""
    metadata.create_all(op.get_bind(), tables=(locations,), checkfirst=False)
    protect(op, locations.name, service)


def projects_of(messages: Iterable[Any]) -> dict[str, str]:
    """Return the project of each instance that events are about; other events have none."""
    instances = [found for each in messages if (found := getattr(each, "instance", None)) is not None]
    return {each.instance_id: each.project_id for each in instances}


async def add_locations(connection: AsyncConnection, tenant_id: str, projects: Mapping[str, str]) -> None:
    """Store the project of each resource that has one; those that are stored already stay."""
    found = {each: project_id for each, project_id in projects.items() if project_id}
    if found:
        parameters = {"tenant_id": tenant_id, "ids": list(found), "project_ids": list(found.values())}
        await connection.execute(_ADD, parameters)


async def add_missing(database: Database, tenant_id: str, projects: Mapping[str, str]) -> None:
    """Store the projects that a comparison announces, as far as they are not stored yet.

    It needs no event, unlike everything else that is compared: there is one project for ever, so no order matters.
    """
    given = {each: project_id for each, project_id in projects.items() if project_id}
    async with database.read(tenant_id) as connection:
        known = await locate(connection, tenant_id, given)
    missing = {each: project_id for each, project_id in given.items() if each not in known}
    if missing:
        async with database.transaction(tenant_id) as connection:
            await add_locations(connection, tenant_id, missing)


async def locate(connection: AsyncConnection, tenant_id: str, ids: Collection[str]) -> dict[str, str]:
    """Return the project of each of the resources that are known."""
    parameters = {"tenant_id": tenant_id, "ids": sorted(ids)}
    return {row[0]: row[1] for row in await connection.execute(_LOCATE, parameters)}


def in_projects(
    column: sa.ColumnElement[str], tenant_id: str, project_ids: Collection[str]
) -> sa.ColumnElement[bool]:
    """Return the condition that a column names a resource of one of the projects."""
    inside = sa.select(locations.c.resource_id).where(
        locations.c.tenant_id == tenant_id, locations.c.project_id.in_(sorted(project_ids))
    )
    return column.in_(inside)
