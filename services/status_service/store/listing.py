"""The queries that list and count statuses by filters.

Equalities and ranges that an index answers in the order of instance ids; an index needs leakproof operators under row-level security.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from servicekit.database import Connection
from status_service.store.statements import any_of
from status_service.store.statuses import StatusRow, status_row
from status_service.store.tables import instance_labels, instance_statuses, instances

# Rare and common filters need different plans, but a prepared statement would use one plan for all of them.
_PLAN_ANEW = sa.text("set local plan_cache_mode = force_custom_plan")
# The words of the partial indexes.
_HAS_CAUSE = sa.text("cause_kinds <> '{}'")
_HAS_OTHER_FLOWS = sa.text("flow_kinds <> '{refresh}'")
_LAST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True)
class Selection:
    """The filters of a list; an empty one matches everything."""

    project_id: str = ""
    statuses: Sequence[str] = ()
    kinds: Sequence[str] = ()
    instance_ids: Sequence[str] = ()
    cause_kinds: Sequence[str] = ()
    unchanged_since: datetime | None = None
    changed_since: datetime | None = None
    flow_kinds: Sequence[str] = ()
    label_terms: Sequence[str] = ()
    owner: str = ""
    name: str = ""
    name_prefix: str = ""
    only: Collection[str] | None = None  # of no other projects than these


async def list_statuses(
    connection: Connection, tenant_id: str, wanted: Selection, limit: int, after: str = ""
) -> list[StatusRow]:
    """Return a page in the order of instance ids."""
    await connection.execute(_PLAN_ANEW)
    query = page_of(tenant_id, wanted, limit, after)
    return [status_row(row) for row in await connection.execute(query)]


async def count_statuses(connection: Connection, tenant_id: str, wanted: Selection) -> dict[str, int]:
    """Return how many there are of each status, whichever statuses are wanted."""
    await connection.execute(_PLAN_ANEW)
    rows = await connection.execute(counts_of(tenant_id, wanted))
    return {row.status: row.instance_count for row in rows}


async def is_incomplete(connection: Connection, tenant_id: str, wanted: Selection, *, is_past: bool) -> bool:
    """Return whether the filters may miss instances of an earlier release, which stored them without what is filtered by."""
    by_age = wanted.unchanged_since is not None or wanted.changed_since is not None
    unknown = []
    if wanted.owner or wanted.label_terms or (not is_past and (wanted.cause_kinds or by_age)):
        lacks = [instances.c.tenant_id == tenant_id, instances.c.owner.is_(None), ~instances.c.is_deleted]
        unknown.append(sa.exists().where(*lacks, *of_projects(wanted, instances)))
    if by_age and not is_past:
        lacks = [instance_statuses.c.tenant_id == tenant_id, instance_statuses.c.since_time.is_(None)]
        unknown.append(sa.exists().where(*lacks, *of_projects(wanted, instance_statuses)))
    return bool(unknown) and bool((await connection.execute(sa.select(sa.or_(*unknown)))).scalar_one())


async def list_names(
    connection: Connection, tenant_id: str, wanted: Selection, limit: int, after: str
) -> Sequence[sa.Row[Any]]:
    """Return a page in the order of instance ids: id, name and project."""
    names = (instance_statuses.c.instance_id, instances.c.name, instance_statuses.c.project_id)
    query = _matching(sa.select(*names), tenant_id, wanted, after, has_names=True)
    return (await connection.execute(query.order_by(instance_statuses.c.instance_id).limit(limit))).all()


def page_of(tenant_id: str, wanted: Selection, limit: int, after: str = "") -> sa.Select[Any]:
    """Return the query of a page."""
    columns = [instance_statuses.c[name] for name in StatusRow.__dataclass_fields__]
    query = _matching(sa.select(*columns), tenant_id, wanted, after)
    return query.order_by(instance_statuses.c.instance_id).limit(limit)


def counts_of(tenant_id: str, wanted: Selection) -> sa.Select[Any]:
    """Return the query that counts by status."""
    status = instance_statuses.c.status
    query = sa.select(status, sa.func.count().label("instance_count")).group_by(status)
    return _matching(query, tenant_id, replace(wanted, statuses=()))


def _matching(
    query: sa.Select[Any], tenant_id: str, wanted: Selection, after: str = "", *, has_names: bool = False
) -> sa.Select[Any]:
    """Return a query of the statuses that match; each table that it joins is read from the position on."""
    tables: list[sa.FromClause] = [instance_statuses]
    if wanted.owner or wanted.name or wanted.name_prefix or wanted.flow_kinds or has_names:
        tables.append(instances)
    labels = [instance_labels.alias() for _ in wanted.label_terms]
    source: sa.FromClause = instance_statuses
    for table in [*tables[1:], *labels]:
        source = source.join(table, table.c.instance_id == instance_statuses.c.instance_id)
    conditions = [*of_statuses(wanted, instance_statuses), *of_instances(wanted, instances)]
    if wanted.cause_kinds:
        is_among = instance_statuses.c.cause_kinds.overlap(_words(wanted.cause_kinds))
        conditions.append(sa.and_(_HAS_CAUSE, is_among))
    if wanted.flow_kinds and "refresh" not in wanted.flow_kinds:
        conditions.append(sa.and_(_HAS_OTHER_FLOWS))
    for table in [*tables, *labels]:
        conditions.append(table.c.tenant_id == tenant_id)
        if after:
            conditions.append(table.c.instance_id > after)
    for label, term in zip(labels, wanted.label_terms, strict=True):
        conditions.append(label.c.term == term)
    return query.select_from(source).where(*conditions)


def of_projects(wanted: Selection, table: sa.FromClause) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions of a table with the project."""
    if wanted.project_id:
        yield table.c.project_id == wanted.project_id
    if wanted.only is not None:
        yield table.c.project_id.in_(sorted(wanted.only))


def of_statuses(wanted: Selection, table: sa.FromClause) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions of a table with project, status, kind, id, and since when the status holds."""
    yield from of_projects(wanted, table)
    for column, values in (
        (table.c.status, wanted.statuses),
        (table.c.kind, wanted.kinds),
        (table.c.instance_id, wanted.instance_ids),
    ):
        if values:
            yield column == any_of(values, column.type)
    if wanted.unchanged_since is not None:
        yield table.c.since_time <= wanted.unchanged_since
    if wanted.changed_since is not None:
        yield table.c.since_time >= wanted.changed_since


def of_instances(wanted: Selection, table: sa.FromClause) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions of a table with flow kinds, owner and name."""
    if wanted.flow_kinds:
        yield table.c.flow_kinds.overlap(_words(wanted.flow_kinds))
    if wanted.owner:
        yield table.c.owner == wanted.owner
    if wanted.name:
        yield table.c.name == wanted.name
    if wanted.name_prefix:
        yield table.c.name >= wanted.name_prefix
        yield table.c.name < wanted.name_prefix + _LAST_CHARACTER


def _words(values: Sequence[str]) -> sa.ColumnElement[Any]:
    return sa.cast(list(values), postgresql.ARRAY(sa.Text))
