"""Queries on which versions instances use: who follows the newest, who lags behind, whose versions are outdated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

# The components that follow a definition, their own or a macro that their expressions call.
_FOLLOWING = """
    select instance_id, config from components
    where tenant_id = :tenant_id and definition_id = cast(:definition_id as uuid) and track_newest
    union all
    select components.instance_id, components.config from definition_versions as macro
    join macro_uses on macro_uses.tenant_id = :tenant_id
        and macro_uses.definition_version_id = macro.definition_version_id
    join components on components.tenant_id = :tenant_id and components.instance_id = macro_uses.instance_id
    where macro.tenant_id = :tenant_id and macro.definition_id = cast(:definition_id as uuid)
        and components.track_newest
"""
# A component counts as the instance that owns it.
_FOLLOWERS = sa.text(f"""
    select distinct cast(coalesce(part.owner_instance_id, part.instance_id) as text)
    from ({_FOLLOWING}) as following
    join instances as part on part.tenant_id = :tenant_id and part.instance_id = following.instance_id
""")  # noqa: S608 - constants
_TRACKING = sa.text(f"""
    select cast(owner.instance_id as text), owner.name, cast(owner.project_id as text) as project_id,
        following.config, owner.snapshot, cast(count(*) over () as integer) as total
    from ({_FOLLOWING}) as following
    join instances as part on part.tenant_id = :tenant_id and part.instance_id = following.instance_id
    join instances as owner on owner.tenant_id = :tenant_id
        and owner.instance_id = coalesce(part.owner_instance_id, part.instance_id)
    where owner.state <> 'deleting'
    order by owner.name, owner.instance_id limit :limit
""")  # noqa: S608 - constants
# Of all versions that instances, their components and the macros of these use: what is worth a look.
_REMARKABLE = sa.text("""
    select distinct cast(used.instance_id as text) as instance_id, definitions.name, held.version, held.state, used.lags
    from (
        select coalesce(instances.owner_instance_id, instances.instance_id) as instance_id,
            uses.definition_version_id, components.track_newest and exists (
                select from definition_versions as held join definition_versions as newer
                    on newer.tenant_id = :tenant_id and newer.definition_id = held.definition_id
                    and newer.state = 'active' and (newer.precedence, newer.definition_version_id)
                        > (held.precedence, held.definition_version_id)
                where held.tenant_id = :tenant_id and held.definition_version_id = uses.definition_version_id
            ) as lags
        from instances
        join components on components.tenant_id = :tenant_id and components.instance_id = instances.instance_id
        join lateral (
            select components.definition_version_id
            union all
            select macro_uses.definition_version_id from macro_uses
            where macro_uses.tenant_id = :tenant_id and macro_uses.instance_id = components.instance_id
        ) as uses on true
        where instances.tenant_id = :tenant_id and (instances.instance_id = any(cast(:instance_ids as uuid[]))
            or instances.owner_instance_id = any(cast(:instance_ids as uuid[])))
    ) as used
    join definition_versions as held on held.tenant_id = :tenant_id
        and held.definition_version_id = used.definition_version_id
    join definitions on definitions.tenant_id = :tenant_id and definitions.definition_id = held.definition_id
    where used.lags or held.state in ('deprecated', 'retired')
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


async def list_followers(connection: AsyncConnection, tenant_id: str, definition_id: str) -> list[str]:
    """Return the instances that follow a definition's newest version, also as a macro that they call."""
    parameters = {"tenant_id": tenant_id, "definition_id": definition_id}
    return list((await connection.execute(_FOLLOWERS, parameters)).scalars())


async def list_tracking(
    connection: AsyncConnection, tenant_id: str, definition_id: str, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return (instance id, name, project id, config, snapshot, how many in all) of the followers, by name."""
    parameters = {"tenant_id": tenant_id, "definition_id": definition_id, "limit": limit}
    return (await connection.execute(_TRACKING, parameters)).all()


async def list_users(connection: AsyncConnection, tenant_id: str, definition_version_id: str) -> list[str]:
    """Return the instances that use a version, also as a macro."""
    parameters = {"tenant_id": tenant_id, "version_id": definition_version_id}
    return list((await connection.execute(_USERS, parameters)).scalars())


async def list_remarkable(
    connection: AsyncConnection, tenant_id: str, instance_ids: Sequence[str]
) -> Sequence[sa.Row[Any]]:
    """Return (instance id, definition, version, state, lags) of versions in use that lag behind or are deprecated.

    `lags` says that the instance follows the newest version, and that there is a newer one.
    """
    parameters = {"tenant_id": tenant_id, "instance_ids": list(instance_ids)}
    return (await connection.execute(_REMARKABLE, parameters)).all()
