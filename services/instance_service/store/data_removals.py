"""The queries on the data of deleted instances."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instance_service.store.tables import data_removals as removals
from instance_service.store.tables import instance_revisions, instances, outputs
from servicekit.database import Connection

_CLAIM = sa.text("""
    update data_removals as claimed set due_time = :lease_time, attempts = claimed.attempts + 1
    from (
        select instance_id from data_removals
        where tenant_id = :tenant_id and due_time <= :now and delete_time <= :deleted_until
            -- Prevents the data of an instance that lives from being removed, whatever else is wrong.
            and not exists (
                select from instances where instances.tenant_id = :tenant_id
                    and instances.instance_id = data_removals.instance_id
            )
        order by due_time, instance_id limit 1 for update skip locked
    ) as due
    where claimed.tenant_id = :tenant_id and claimed.instance_id = due.instance_id
    returning claimed.delete_time, claimed.due_time, claimed.attempts, claimed.problem, claimed.snapshot
""")


async def insert_removals(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Record that the data of these deleted instances still exists."""
    await connection.execute(sa.insert(removals), list(rows))


async def list_used_stores(
    connection: Connection, tenant_id: str, instance_ids: Sequence[str]
) -> list[tuple[str, bytes]]:
    """Return (dataset or signal, its store component), both serialized, for every revision of the instances."""
    statement = (
        sa.select(instances.c.owner_instance_id, instance_revisions.c.snapshot)
        .join(
            instance_revisions,
            sa.and_(
                instance_revisions.c.tenant_id == instances.c.tenant_id,
                instance_revisions.c.instance_id == instances.c.instance_id,
            ),
        )
        .where(
            instances.c.tenant_id == tenant_id,
            instances.c.owner_instance_id.in_(instance_ids),
            instances.c.kind == "store",
        )
        .order_by(instances.c.owner_instance_id, instance_revisions.c.revision)
    )
    return [(row[0], bytes(row[1])) for row in await connection.execute(statement)]


async def list_with_output(connection: Connection, tenant_id: str, instance_ids: Sequence[str]) -> set[str]:
    """Return those of the instances that ever had an output."""
    statement = sa.select(outputs.c.instance_id).where(
        outputs.c.tenant_id == tenant_id, outputs.c.instance_id.in_(instance_ids)
    )
    return set((await connection.execute(statement)).scalars())


async def list_removals(
    connection: Connection, tenant_id: str, after: tuple[datetime, str] | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return a page of removals in the order of deletion, after a position (time, id)."""
    statement = sa.select(removals).where(removals.c.tenant_id == tenant_id)
    if after is not None:
        time, instance_id = after
        position = sa.tuple_(sa.literal(time), sa.cast(instance_id, removals.c.instance_id.type))
        statement = statement.where(sa.tuple_(removals.c.delete_time, removals.c.instance_id) > position)
    ordered = statement.order_by(removals.c.delete_time, removals.c.instance_id).limit(limit)
    return (await connection.execute(ordered)).all()


async def claim_removal(
    connection: Connection,
    tenant_id: str,
    *,
    now: datetime,
    deleted_until: datetime,
    lease_time: datetime,
) -> sa.Row[Any] | None:
    """Claim the longest due removal of an instance deleted by the given time; it is due again after the lease."""
    parameters = {
        "tenant_id": tenant_id, "now": now, "deleted_until": deleted_until, "lease_time": lease_time
    }  # fmt: skip
    return (await connection.execute(_CLAIM, parameters)).one_or_none()


async def lock_attempts(connection: Connection, tenant_id: str, instance_id: str) -> int | None:
    """Lock a removal and return how often it was tried, or None if there is no such removal."""
    statement = (
        sa.select(removals.c.attempts)
        .where(removals.c.tenant_id == tenant_id, removals.c.instance_id == instance_id)
        .with_for_update()
    )
    return (await connection.execute(statement)).scalar_one_or_none()


async def delete_removal(connection: Connection, tenant_id: str, instance_id: str) -> None:
    """Delete the row of a finished removal."""
    await connection.execute(
        sa.delete(removals).where(
            removals.c.tenant_id == tenant_id,
            removals.c.instance_id == instance_id,
            removals.c.attempts > 0,
        )
    )


async def postpone_removal(
    connection: Connection, tenant_id: str, instance_id: str, problem: str, due_time: datetime
) -> None:
    """Record why a removal failed and when it is tried again."""
    await connection.execute(
        sa.update(removals)
        .where(removals.c.tenant_id == tenant_id, removals.c.instance_id == instance_id)
        .values(problem=problem, due_time=due_time)
    )
