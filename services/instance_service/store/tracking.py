"""The queries on the versions that instances use: which track the newest version, lag behind, or use an outdated one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from servicekit.database import Connection

# The components that track the newest version of a definition: their own, or a macro that their expressions call.
_TRACKING_PARTS = """
    select instance_id from components
    where tenant_id = :tenant_id and definition_id = cast(:definition_id as uuid) and track_newest
    union all
    select components.instance_id from definition_versions as macro
    join macro_uses on macro_uses.tenant_id = :tenant_id
        and macro_uses.definition_version_id = macro.definition_version_id
    join components on components.tenant_id = :tenant_id and components.instance_id = macro_uses.instance_id
    where macro.tenant_id = :tenant_id and macro.definition_id = cast(:definition_id as uuid)
        and components.track_newest
"""
# A component counts as the instance that owns it.
_TRACKING_IDS = sa.text(f"""
    select distinct cast(coalesce(part.owner_instance_id, part.instance_id) as text)
    from ({_TRACKING_PARTS}) as following
    join instances as part on part.tenant_id = :tenant_id and part.instance_id = following.instance_id
""")  # noqa: S608 - constants
_TRACKING = sa.text(f"""
    select cast(owner.instance_id as text), owner.name, cast(owner.project_id as text) as project_id,
        owner.snapshot, cast(count(*) over () as integer) as total
    from ({_TRACKING_PARTS}) as following
    join instances as part on part.tenant_id = :tenant_id and part.instance_id = following.instance_id
    join instances as owner on owner.tenant_id = :tenant_id
        and owner.instance_id = coalesce(part.owner_instance_id, part.instance_id)
    where owner.state <> 'deleting'
    order by owner.name, owner.instance_id limit :limit
""")  # noqa: S608 - constants
# Of all versions that the instances, their components and their macros use: those that lag or are outdated. It begins
# with the parts of these instances and finds the rest by key, so other instances do not slow it down.
_OUTDATED_USES = sa.text("""
    with parts as materialized (
        select instance_id, coalesce(owner_instance_id, instance_id) as owner_id from instances
        where tenant_id = :tenant_id and instance_id = any(cast(:instance_ids as uuid[]))
        union
        select instance_id, owner_instance_id from instances
        where tenant_id = :tenant_id and owner_instance_id = any(cast(:instance_ids as uuid[]))
    )
    select distinct cast(parts.owner_id as text) as instance_id, definitions.name, held.version, held.state, held.lags
    from parts
    join lateral (
        select definition_version_id, track_newest from components
        where tenant_id = :tenant_id and instance_id = parts.instance_id
        union all
        select macro_uses.definition_version_id, components.track_newest
        from macro_uses join components
            on components.tenant_id = :tenant_id and components.instance_id = parts.instance_id
        where macro_uses.tenant_id = :tenant_id and macro_uses.instance_id = parts.instance_id
    ) as used on true
    join lateral (
        select version.definition_id, version.version, version.state, used.track_newest and exists (
            select from definition_versions as newer
            where newer.tenant_id = :tenant_id and newer.definition_id = version.definition_id
                and newer.state = 'active' and (newer.precedence, newer.definition_version_id)
                    > (version.precedence, version.definition_version_id)
        ) as lags
        from definition_versions as version
        where version.tenant_id = :tenant_id and version.definition_version_id = used.definition_version_id
    ) as held on held.lags or held.state in ('deprecated', 'retired')
    join definitions on definitions.tenant_id = :tenant_id and definitions.definition_id = held.definition_id
""")
_USERS = sa.text("""
    select distinct cast(coalesce(part.owner_instance_id, part.instance_id) as text)
    from (
        select instance_id from components
        where tenant_id = :tenant_id and definition_version_id = cast(:version_id as uuid)
        union all
        select instance_id from macro_uses
        where tenant_id = :tenant_id and definition_version_id = cast(:version_id as uuid)
    ) as users
    join instances as part on part.tenant_id = :tenant_id and part.instance_id = users.instance_id
""")


async def list_tracking_ids(connection: Connection, tenant_id: str, definition_id: str) -> list[str]:
    """Return the instances that track a definition's newest version, directly or as a macro that they call."""
    parameters = {"tenant_id": tenant_id, "definition_id": definition_id}
    return list((await connection.execute(_TRACKING_IDS, parameters)).scalars())


async def list_tracking(
    connection: Connection, tenant_id: str, definition_id: str, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return (id, name, project id, snapshot, total count) of the instances that track a definition, by name."""
    parameters = {"tenant_id": tenant_id, "definition_id": definition_id, "limit": limit}
    return (await connection.execute(_TRACKING, parameters)).all()


async def list_users(connection: Connection, tenant_id: str, definition_version_id: str) -> list[str]:
    """Return the instances that use a version, directly or as a macro."""
    parameters = {"tenant_id": tenant_id, "version_id": definition_version_id}
    return list((await connection.execute(_USERS, parameters)).scalars())


async def list_outdated_uses(
    connection: Connection, tenant_id: str, instance_ids: Sequence[str]
) -> Sequence[sa.Row[Any]]:
    """Return (instance id, definition, version, state, lags) of versions in use that lag behind or are deprecated.

    `lags` means that the instance tracks the newest version, but a newer one exists.
    """
    parameters = {"tenant_id": tenant_id, "instance_ids": list(instance_ids)}
    return (await connection.execute(_OUTDATED_USES, parameters)).all()
