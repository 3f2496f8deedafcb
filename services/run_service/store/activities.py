"""Read and write the timelines of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from google.protobuf import json_format
from sqlalchemy.dialects.postgresql import insert

from optaic.run.v1 import run_pb2
from run_service.store.tables import activities
from servicekit.database import Connection
from servicekit.times import set_time


async def insert_activities(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert entries of timelines; an entry that exists stays as it is."""
    if rows:
        await connection.execute(insert(activities).on_conflict_do_nothing(), [dict(row) for row in rows])


async def has_activity(connection: Connection, tenant_id: str, run_id: str, kind: str) -> bool:
    """Return whether a run's timeline has an entry of a type."""
    statement = sa.select(sa.literal(1)).where(
        activities.c.tenant_id == tenant_id, activities.c.run_id == run_id, activities.c.type == kind
    )
    return (await connection.execute(statement.limit(1))).first() is not None


async def list_activities(
    connection: Connection,
    tenant_id: str,
    run_id: str,
    *,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[run_pb2.Activity]:
    """Return a page of a run's timeline, oldest first."""
    position = sa.tuple_(activities.c.create_time, activities.c.activity_id)
    statement = (
        sa.select(activities)
        .where(activities.c.tenant_id == tenant_id, activities.c.run_id == run_id)
        .order_by(activities.c.create_time, activities.c.activity_id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(position > after)
    return [_activity_of(row) for row in (await connection.execute(statement)).mappings()]


def _activity_of(row: sa.RowMapping) -> run_pb2.Activity:
    activity = run_pb2.Activity(
        **{name: row[name] for name in ("activity_id", "run_id", "type", "actor", "message")}
    )
    set_time(activity.create_time, row["create_time"])
    if row["details"]:
        json_format.ParseDict(row["details"], activity.details)
    return activity
