"""Read and add the hashes of code on record; no row is changed or removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from optaic.run.v1 import run_service_pb2
from run_service.store.tables import code_hashes
from servicekit.database import Connection
from servicekit.times import set_time

_PLAIN = (
    "definition_version_id",
    "definition_name",
    "definition_version",
    "number",
    "hash",
    "actor",
    "reason",
)
_NEWEST = sa.select(code_hashes).order_by(code_hashes.c.definition_version_id, code_hashes.c.number.desc())


async def list_newest_hashes(
    connection: Connection, tenant_id: str, definition_version_ids: Collection[str]
) -> dict[str, str]:
    """Return the newest hash of each definition version that has one."""
    statement = (
        sa.select(code_hashes.c.definition_version_id, code_hashes.c.hash)
        .distinct(code_hashes.c.definition_version_id)
        .where(
            code_hashes.c.tenant_id == tenant_id,
            code_hashes.c.definition_version_id.in_(definition_version_ids),
        )
        .order_by(code_hashes.c.definition_version_id, code_hashes.c.number.desc())
    )
    return {row.definition_version_id: row.hash for row in await connection.execute(statement)}


async def insert_hashes(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows in the order of their definition versions; return how many are new."""
    if not rows:
        return 0
    ordered = sorted((dict(row) for row in rows), key=lambda row: str(row["definition_version_id"]))
    statement = insert(code_hashes).values(ordered).on_conflict_do_nothing()
    found = await connection.execute(statement.returning(code_hashes.c.number))
    return len(found.all())


async def get_newest_hash(
    connection: Connection, tenant_id: str, definition_version_id: str
) -> run_service_pb2.CodeHash | None:
    """Return the newest hash of a definition version."""
    statement = _NEWEST.where(
        code_hashes.c.tenant_id == tenant_id, code_hashes.c.definition_version_id == definition_version_id
    )
    row = (await connection.execute(statement.limit(1))).mappings().one_or_none()
    return None if row is None else _code_hash_of(row)


async def list_hashes(
    connection: Connection,
    tenant_id: str,
    *,
    definition_version_id: str,
    after: tuple[str, int] | None,
    limit: int,
) -> list[run_service_pb2.CodeHash]:
    """Return the hashes that are and were on record, by definition version, newest first."""
    statement = _NEWEST.where(code_hashes.c.tenant_id == tenant_id).limit(limit)
    if definition_version_id:
        statement = statement.where(code_hashes.c.definition_version_id == definition_version_id)
    if after is not None:
        statement = statement.where(
            (code_hashes.c.definition_version_id > after[0])
            | ((code_hashes.c.definition_version_id == after[0]) & (code_hashes.c.number < after[1]))
        )
    return [_code_hash_of(row) for row in (await connection.execute(statement)).mappings()]


def _code_hash_of(row: sa.RowMapping) -> run_service_pb2.CodeHash:
    found = run_service_pb2.CodeHash(run_id=row["run_id"] or "", **{name: row[name] for name in _PLAIN})
    set_time(found.create_time, row["create_time"])
    return found
