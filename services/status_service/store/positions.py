"""The queries that say which revision of lineage the statuses had, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from servicekit.database import Connection

_FIND = sa.text("""
    select reached.revision, reached.lineage_revision, (
            select coalesce(
                (select lineage_revision from lineage_positions where tenant_id = :tenant_id and create_time <= :kept_since
                    order by create_time desc, lineage_revision desc limit 1),
                (select min(lineage_revision) from lineage_positions where tenant_id = :tenant_id))
        ) as first_revision, held.lineage_revision as held_revision, held.create_time as held_time,
        following.revision as last_revision
    from tenant_revisions as reached
    left join lateral (
        select lineage_revision, create_time from lineage_positions
        where tenant_id = :tenant_id and lineage_revision <= :lineage_revision order by lineage_revision desc limit 1
    ) as held on true
    left join lateral (
        select revision from lineage_positions
        where tenant_id = :tenant_id and lineage_revision > :lineage_revision order by lineage_revision limit 1
    ) as following on true
    where reached.tenant_id = :tenant_id
""")
_FIND_BY_TIME = sa.text("""
    select lineage_revision, create_time from lineage_positions where tenant_id = :tenant_id and create_time <= :time
    order by create_time desc, lineage_revision desc limit 1
""")
_TRIM = sa.text("""
    with newest as (
        select tenant_id, max(lineage_revision) as lineage_revision from lineage_positions
        where create_time > :after and create_time <= :horizon group by tenant_id
    )
    delete from lineage_positions as old using newest
    where old.tenant_id = newest.tenant_id and old.lineage_revision < newest.lineage_revision
""")


@dataclass(frozen=True)
class Position:
    """A revision of lineage, the newest revision of the statuses before it was applied, and when it was."""

    lineage_revision: int
    revision: int
    create_time: datetime


@dataclass(frozen=True)
class Found:
    """The record of a revision of lineage."""

    first_revision: int | None  # the first revision of lineage that can be shown
    held_revision: int | None  # the newest recorded one up to that which was asked for
    held_time: datetime | None
    last_revision: int  # the newest revision of the statuses before the next one was applied
    is_empty: bool = False  # the tenant has never had a status


async def find_position(
    connection: Connection, tenant_id: str, lineage_revision: int, kept_since: datetime
) -> Found:
    """Return which revisions of the statuses belong to a revision of lineage."""
    parameters = {"tenant_id": tenant_id, "lineage_revision": lineage_revision, "kept_since": kept_since}
    row = (await connection.execute(_FIND, parameters)).one_or_none()
    if row is None or not row.revision:
        return Found(None, None, None, 0, is_empty=True)
    last = row.revision if row.last_revision is None else row.last_revision
    return Found(row.first_revision, row.held_revision, row.held_time, last)


async def find_position_at(
    connection: Connection, tenant_id: str, time: datetime
) -> tuple[int, datetime | None]:
    """Return the newest revision of lineage that the statuses had at a time, and since when; 0 if none is recorded."""
    row = (await connection.execute(_FIND_BY_TIME, {"tenant_id": tenant_id, "time": time})).one_or_none()
    return (0, None) if row is None else (row.lineage_revision, row.create_time)


async def trim_positions(connection: Connection, after: datetime, horizon: datetime) -> None:
    """Remove the positions before the newest one of each tenant, of those after one time up to another."""
    await connection.execute(_TRIM, {"after": after, "horizon": horizon})
