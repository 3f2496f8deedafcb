"""The SQL of the audit trail; a record is inserted once, gets a sequence number, and otherwise never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import DecodeError
from sqlalchemy.ext.asyncio import AsyncConnection

from optaic.audit.v1.audit_pb2 import AuditEntry, AuditRecord, AuditSeal
from servicekit.schema import audit_records, audit_seals
from servicekit.times import set_time
from servicekit.turns import in_turns

_TRY_LOCK = sa.text("select pg_try_advisory_xact_lock(hashtextextended('servicekit.audit.seals', 0))")
_LIST_HEADS = sa.text("""
    select distinct on (tenant_id) tenant_id, seal_number, last_sequence, hash from audit_seals
    where tenant_id = any(:tenant_ids) order by tenant_id, seal_number desc
""")
_SET_SEQUENCES = sa.text("""
    update audit_records r set sequence = given.sequence
    from unnest(cast(:tenant_ids as text[]), cast(:audit_ids as uuid[]), cast(:sequences as bigint[]))
         as given (tenant_id, audit_id, sequence)
    where r.tenant_id = given.tenant_id and r.audit_id = given.audit_id and r.sequence is null
""")


@dataclass(frozen=True)
class StoredRecord:
    """A record of the trail, and the id of its row."""

    audit_id: str
    entry: AuditEntry


async def insert_records(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert records, given as `records.row_of` makes them."""
    await connection.execute(sa.insert(audit_records), list(rows))


async def try_lock(connection: AsyncConnection) -> bool:
    """Return whether this transaction is the one that seals now; others must not."""
    return bool((await connection.execute(_TRY_LOCK)).scalar_one())


async def list_unsealed(connection: AsyncConnection, most: int) -> list[tuple[str, str, bytes]]:
    """Return tenant, id and content of records without a sequence number, those of a tenant together."""

    def is_unsealed(columns: Any) -> sa.ColumnElement[bool]:
        unsealed: sa.ColumnElement[bool] = columns.sequence.is_(None)
        return unsealed

    key = ("tenant_id", "audit_id")
    turns = in_turns(audit_records, is_unsealed, key=key, order="audit_id", limit=most, queued=is_unsealed)
    chosen = turns.cte("chosen")
    statement = (
        sa.select(audit_records.c.tenant_id, audit_records.c.audit_id, audit_records.c.content)
        .join(
            chosen,
            sa.and_(
                audit_records.c.tenant_id == chosen.c.tenant_id, audit_records.c.audit_id == chosen.c.audit_id
            ),
        )
        .order_by(audit_records.c.tenant_id, audit_records.c.audit_id)
    )
    rows = await connection.execute(statement)
    return [(tenant_id, audit_id, bytes(content)) for tenant_id, audit_id, content in rows]


async def list_heads(connection: AsyncConnection, tenant_ids: Sequence[str]) -> dict[str, AuditSeal]:
    """Return the newest seal of each tenant that has one."""
    rows = await connection.execute(_LIST_HEADS, {"tenant_ids": list(tenant_ids)})
    return {
        tenant_id: AuditSeal(seal_number=number, last_sequence=last, hash=bytes(digest))
        for tenant_id, number, last, digest in rows
    }


async def set_sequences(connection: AsyncConnection, sequences: Sequence[tuple[str, str, int]]) -> int:
    """Give records their sequence numbers, each as (tenant, id, sequence); return how many got theirs."""
    tenant_ids, audit_ids, numbers = (list(column) for column in zip(*sequences, strict=True))
    parameters = {"tenant_ids": tenant_ids, "audit_ids": audit_ids, "sequences": numbers}
    return (await connection.execute(_SET_SEQUENCES, parameters)).rowcount


async def insert_seals(
    connection: AsyncConnection, seals: Sequence[tuple[str, AuditSeal]], time: datetime
) -> None:
    """Insert seals, each with its tenant."""
    rows = [
        {
            "tenant_id": tenant_id,
            "seal_number": seal.seal_number,
            "first_sequence": seal.first_sequence,
            "last_sequence": seal.last_sequence,
            "merkle_root": seal.merkle_root,
            "previous_hash": seal.previous_hash,
            "hash": seal.hash,
            "seal_time": time,
        }
        for tenant_id, seal in seals
    ]
    await connection.execute(sa.insert(audit_seals), rows)


async def list_records(
    connection: AsyncConnection,
    tenant_id: str,
    conditions: Sequence[sa.ColumnElement[bool]],
    *,
    in_sequence: bool,
    most: int,
) -> list[StoredRecord]:
    """Return the tenant's records that meet all conditions, by sequence or by id."""
    order = audit_records.c.sequence if in_sequence else audit_records.c.audit_id
    statement = (
        sa.select(audit_records.c.audit_id, audit_records.c.content, audit_records.c.sequence)
        .where(audit_records.c.tenant_id == tenant_id, *conditions)
        .order_by(order)
        .limit(most)
    )
    return [
        StoredRecord(audit_id, AuditEntry(record=_readable(content), content=content, sequence=sequence or 0))
        for audit_id, content, sequence in await connection.execute(statement)
    ]


async def list_seals(connection: AsyncConnection, tenant_id: str, after: int, most: int) -> list[AuditSeal]:
    """Return the tenant's seals after a number, in the order of their numbers."""
    table = audit_seals.c
    statement = (
        sa.select(audit_seals)
        .where(table.tenant_id == tenant_id, table.seal_number > after)
        .order_by(table.seal_number)
        .limit(most)
    )
    seals = []
    for row in (await connection.execute(statement)).mappings():
        seal = AuditSeal(
            seal_number=row["seal_number"],
            first_sequence=row["first_sequence"],
            last_sequence=row["last_sequence"],
            merkle_root=bytes(row["merkle_root"]),
            previous_hash=bytes(row["previous_hash"]),
            hash=bytes(row["hash"]),
        )
        set_time(seal.seal_time, row["seal_time"])
        seals.append(seal)
    return seals


def _readable(content: bytes) -> AuditRecord:
    """Parse a record; one that was made unreadable is empty, and its seal says that it was changed."""
    try:
        return AuditRecord.FromString(content)
    except DecodeError:
        return AuditRecord()
