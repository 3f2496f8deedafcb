"""The queries that list and count statuses as of a moment; they read the history of each instance once, by its key.

A moment is a time, or the newest revision of the statuses that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from servicekit.database import Connection
from status_service.store.listing import Selection, of_instances, of_statuses
from status_service.store.tables import instance_labels, instances, status_history


async def list_past_statuses(
    connection: Connection, tenant_id: str, as_of: datetime | int, wanted: Selection, limit: int, after: str
) -> Sequence[sa.Row[Any]]:
    """Return a page in the order of instance ids: id, name, project, kind, status, revision, its time, and since when."""
    query = past_page_of(tenant_id, as_of, wanted, limit, after)
    return (await connection.execute(query)).all()


async def count_past_statuses(
    connection: Connection, tenant_id: str, as_of: datetime | int, wanted: Selection
) -> dict[str, int]:
    """Return how many there were of each status, whichever statuses are wanted."""
    past = _past(tenant_id, as_of)
    counts = sa.select(past.c.status, sa.func.count().label("instance_count")).group_by(past.c.status)
    query = _matching(counts, past, tenant_id, replace(wanted, statuses=()))
    return {row.status: row.instance_count for row in await connection.execute(query)}


def past_page_of(
    tenant_id: str, as_of: datetime | int, wanted: Selection, limit: int, after: str = ""
) -> sa.Select[Any]:
    """Return the query of a page."""
    past = _past(tenant_id, as_of)
    names = ("instance_id", "name", "project_id", "kind", "status", "revision", "update_time", "since_time")
    query = _matching(sa.select(*(past.c[name] for name in names)), past, tenant_id, wanted)
    if after:
        query = query.where(past.c.instance_id > after)
    return query.order_by(past.c.instance_id).limit(limit)


def _past(tenant_id: str, as_of: datetime | int) -> sa.Subquery:
    """Return the instances that existed at a moment, with their statuses then."""
    held, changed, deleted = (status_history.alias() for _ in range(3))
    by_revision = isinstance(as_of, int)

    def until(table: sa.FromClause) -> list[sa.ColumnElement[bool]]:
        return [
            table.c.tenant_id == tenant_id,
            table.c.instance_id == instances.c.instance_id,
            (table.c.revision if by_revision else table.c.create_time) <= as_of,
        ]

    status = (
        sa.select(held.c.to_status, held.c.revision, held.c.create_time)
        .where(*until(held))
        .order_by(held.c.revision.desc())
        .limit(1)
        .lateral("held")
    )
    since = (
        sa.select(changed.c.create_time)
        .where(*until(changed), changed.c.from_status != changed.c.to_status)
        .order_by(changed.c.revision.desc())
        .limit(1)
        .scalar_subquery()
    )
    # Earlier releases did not enter deletions in the history, and recorded no revisions of lineage.
    is_entered = sa.exists().where(
        deleted.c.tenant_id == tenant_id,
        deleted.c.instance_id == instances.c.instance_id,
        deleted.c.to_status == "",
    )
    names = ("instance_id", "name", "project_id", "kind", "owner", "flow_kinds")
    return (
        sa.select(
            *(instances.c[name] for name in names),
            status.c.to_status.label("status"),
            status.c.revision,
            status.c.create_time.label("update_time"),
            since.label("since_time"),
        )
        .select_from(instances.join(status, sa.true()))
        .where(
            instances.c.tenant_id == tenant_id,
            status.c.to_status != "",
            ~instances.c.is_deleted
            | (sa.false() if by_revision else instances.c.update_time > as_of)
            | is_entered,
        )
        .subquery("past")
    )


def _matching(query: sa.Select[Any], past: sa.Subquery, tenant_id: str, wanted: Selection) -> sa.Select[Any]:
    for term in wanted.label_terms:
        has_label = sa.exists().where(
            instance_labels.c.tenant_id == tenant_id,
            instance_labels.c.instance_id == past.c.instance_id,
            instance_labels.c.term == term,
        )
        query = query.where(has_label)
    return query.where(*of_statuses(wanted, past), *of_instances(wanted, past))
