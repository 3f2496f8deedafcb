"""The queries on definitions and their versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from instance_service.store.tables import definition_versions as versions
from instance_service.store.tables import definitions
from servicekit.database import Connection

_NEWEST = sa.text("""
    select distinct on (definition_id) cast(definition_id as text), snapshot from definition_versions
    where tenant_id = :tenant_id and definition_id = any(cast(:ids as uuid[])) and state = 'active'
    order by definition_id, precedence desc, definition_version_id desc
""")

_PREVIOUS = sa.text("""
    select snapshot from definition_versions
    where tenant_id = :tenant_id and definition_id = cast(:definition_id as uuid) and state = 'active'
        and precedence < :precedence
    order by precedence desc, definition_version_id desc limit 1
""")


async def insert_definition(connection: Connection, row: dict[str, Any]) -> str:
    """Create a definition unless one of its kind and name exists; return the id of the existing or new one."""
    await connection.execute(
        insert(definitions).values(row).on_conflict_do_nothing(constraint="uq_definitions_kind")
    )
    found = await get_definition_by_name(connection, row["tenant_id"], row["kind"], row["name"])
    assert found is not None
    return str(found.definition_id)


async def insert_version(connection: Connection, row: dict[str, Any]) -> bool:
    """Create a version unless it exists; return whether it was created."""
    statement = (
        insert(versions)
        .values(row)
        .on_conflict_do_nothing(constraint="uq_definition_versions_version")
        .returning(versions.c.version)
    )
    return (await connection.execute(statement)).first() is not None


async def get_definition(connection: Connection, tenant_id: str, definition_id: str) -> sa.Row[Any] | None:
    """Return a definition's row."""
    statement = sa.select(definitions).where(
        definitions.c.tenant_id == tenant_id, definitions.c.definition_id == definition_id
    )
    return (await connection.execute(statement)).one_or_none()


async def get_definition_by_name(
    connection: Connection, tenant_id: str, kind: str, name: str
) -> sa.Row[Any] | None:
    """Return a definition's row by its kind and name."""
    statement = sa.select(definitions).where(
        definitions.c.tenant_id == tenant_id, definitions.c.kind == kind, definitions.c.name == name
    )
    return (await connection.execute(statement)).one_or_none()


async def list_known_hashes(
    connection: Connection, tenant_id: str, content_hashes: Sequence[str]
) -> set[str]:
    """Return those of the content hashes that versions of the tenant have."""
    statement = sa.select(versions.c.content_hash).where(
        versions.c.tenant_id == tenant_id, versions.c.content_hash.in_(content_hashes)
    )
    return set((await connection.execute(statement)).scalars())


async def list_definitions(
    connection: Connection,
    tenant_id: str,
    *,
    kind: str,
    state: str,
    name_prefix: str,
    after: tuple[str, str] | None,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    """Return definitions by name after a position (name, id); empty filters select all."""
    name = definitions.c.name.collate("C")
    statement = sa.select(definitions).where(definitions.c.tenant_id == tenant_id)
    if kind:
        statement = statement.where(definitions.c.kind == kind)
    if state:
        statement = statement.where(
            sa.exists().where(
                versions.c.tenant_id == tenant_id,
                versions.c.definition_id == definitions.c.definition_id,
                versions.c.state == state,
            )
        )
    if name_prefix:
        statement = statement.where(name.startswith(name_prefix, autoescape=True))
    if after:
        position = sa.tuple_(sa.literal(after[0]), sa.cast(after[1], sa.Uuid(as_uuid=False)))
        statement = statement.where(sa.tuple_(name, definitions.c.definition_id) > position)
    statement = statement.order_by(name, definitions.c.definition_id).limit(limit)
    return (await connection.execute(statement)).all()


async def newest_versions(
    connection: Connection, tenant_id: str, definition_ids: Sequence[str]
) -> dict[str, bytes]:
    """Return each definition's newest active version, serialized."""
    rows = await connection.execute(_NEWEST, {"tenant_id": tenant_id, "ids": list(definition_ids)})
    return {row[0]: bytes(row[1]) for row in rows}


async def previous_version(
    connection: Connection, tenant_id: str, definition_id: str, precedence: str
) -> bytes | None:
    """Return the newest active version before a precedence, serialized."""
    parameters = {"tenant_id": tenant_id, "definition_id": definition_id, "precedence": precedence}
    return (await connection.execute(_PREVIOUS, parameters)).scalar_one_or_none()


async def is_surpassed(connection: Connection, tenant_id: str, definition_id: str, precedence: str) -> bool:
    """Return whether the definition has an active version of higher precedence."""
    statement = sa.select(sa.literal(1)).where(
        versions.c.tenant_id == tenant_id,
        versions.c.definition_id == definition_id,
        versions.c.state == "active",
        versions.c.precedence > precedence,
    )
    return (await connection.execute(statement.limit(1))).first() is not None


async def get_version(
    connection: Connection,
    tenant_id: str,
    *,
    definition_version_id: str = "",
    definition_id: str = "",
    version: str = "",
) -> sa.Row[Any] | None:
    """Return a version's row by its id, or by definition and semantic version."""
    statement = sa.select(versions).where(versions.c.tenant_id == tenant_id)
    if definition_version_id:
        statement = statement.where(versions.c.definition_version_id == definition_version_id)
    if definition_id:
        statement = statement.where(versions.c.definition_id == definition_id)
    if version:
        statement = statement.where(versions.c.version == version)
    return (await connection.execute(statement)).one_or_none()


async def list_versions(
    connection: Connection, tenant_id: str, definition_id: str, after: tuple[str, str] | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return versions, newest first, after a position (precedence, id)."""
    statement = sa.select(versions).where(
        versions.c.tenant_id == tenant_id, versions.c.definition_id == definition_id
    )
    key = sa.tuple_(versions.c.precedence, versions.c.definition_version_id)
    if after:
        statement = statement.where(
            key < sa.tuple_(sa.literal(after[0]), sa.cast(after[1], sa.Uuid(as_uuid=False)))
        )
    statement = statement.order_by(versions.c.precedence.desc(), versions.c.definition_version_id.desc())
    return (await connection.execute(statement.limit(limit))).all()


async def update_version_state(
    connection: Connection, tenant_id: str, definition_version_id: str, state: str, snapshot: bytes
) -> None:
    """Move a version to another state."""
    await connection.execute(
        sa.update(versions)
        .where(versions.c.tenant_id == tenant_id, versions.c.definition_version_id == definition_version_id)
        .values(state=state, snapshot=snapshot)
    )
