"""The queries on promotions of model versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from instance_service.store.tables import model_promotions as promotions
from servicekit.database import Connection


async def insert_promotion(
    connection: Connection, tenant_id: str, instance_id: str, revision: int, snapshot: bytes
) -> None:
    """Record that a model's revision is the promotion of a model version."""
    await connection.execute(
        sa.insert(promotions).values(
            tenant_id=tenant_id, instance_id=instance_id, revision=revision, snapshot=snapshot
        )
    )


async def list_promotions(
    connection: Connection, tenant_id: str, instance_id: str, before: int | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return (revision, serialized promotion), newest first, before a revision."""
    statement = sa.select(promotions.c.revision, promotions.c.snapshot).where(
        promotions.c.tenant_id == tenant_id, promotions.c.instance_id == instance_id
    )
    if before is not None:
        statement = statement.where(promotions.c.revision < before)
    return (await connection.execute(statement.order_by(promotions.c.revision.desc()).limit(limit))).all()
