"""The query that lists instances; the cost of a page does not grow with the number of instances.

Each filter is an equality that an index answers in the order of names. Every operator is leakproof, because under
row-level security PostgreSQL uses an index only for leakproof operators.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from instance_service.store.tables import instance_terms, instances
from optaic.rules.kinds import COMPONENT_KINDS
from servicekit.database import Connection
from servicekit.pages import MOST_BYTES
from servicekit.schema import UUID_TEXT
from servicekit.terms import label_term

# Rare and common filters need different plans, but a prepared statement would use one plan for all of them.
_PLAN_ANEW = sa.text("set local plan_cache_mode = force_custom_plan")


@dataclass(frozen=True)
class Selection:
    """The filters of a list; an empty one matches everything, but without kinds components are left out."""

    project_id: str = ""
    kinds: Sequence[str] = ()
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    states: Sequence[str] = ()
    owner: str = ""
    definition_id: str = ""
    only: Collection[str] | None = None  # of no other projects than these


async def list_instances(
    connection: Connection, tenant_id: str, wanted: Selection, after: tuple[str, str] | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return (name, id, serialized instance) by name, after a position (name, id)."""
    await connection.execute(_PLAN_ANEW)
    page = within_bytes(page_of(tenant_id, wanted, after, limit), "name", "instance_id")
    return (await connection.execute(page)).all()


def within_bytes(page: sa.Select[Any], *order: str, is_descending: bool = False) -> sa.Select[Any]:
    """Return the query of a page limited by size: it reads up to the first snapshot that does not fit."""

    def ordered(rows: sa.Subquery) -> list[sa.ColumnElement[Any]]:
        return [rows.c[name].desc() if is_descending else rows.c[name] for name in order]

    rows = page.subquery()
    size = sa.func.octet_length(rows.c.snapshot)
    before = sa.func.sum(size).over(order_by=ordered(rows), rows=(None, -1))
    weighed = sa.select(rows, sa.func.coalesce(before, 0).label("before")).subquery()
    return sa.select(weighed).where(weighed.c.before <= MOST_BYTES).order_by(*ordered(weighed))


def page_of(
    tenant_id: str, wanted: Selection, after: tuple[str, str] | None, limit: int
) -> sa.Select[tuple[str, str, bytes]]:
    """Return the query of a page, without a limit of its size in bytes."""
    terms = [label_term(key, value) for key, value in wanted.labels.items()]
    if wanted.definition_id:
        terms.append(wanted.definition_id)
    parts = [
        _part(tenant_id, wanted, terms, kind, state, after, limit)
        for kind, state in itertools.product(wanted.kinds or [""], wanted.states or [""])
    ]
    if len(parts) == 1:
        return parts[0]
    # Each part is sorted and is read only as far as the page needs.
    merged = sa.union_all(*parts).subquery()
    return sa.select(merged).order_by(merged.c.name, merged.c.instance_id).limit(limit)


def _part(
    tenant_id: str,
    wanted: Selection,
    terms: Sequence[str],
    kind: str,
    state: str,
    after: tuple[str, str] | None,
    limit: int,
) -> sa.Select[tuple[str, str, bytes]]:
    """Return the query of a page of one kind and one state."""
    source: sa.FromClause = instances
    ordered: sa.FromClause = instances
    for term in terms:
        found = instance_terms.alias()
        condition = sa.and_(
            found.c.tenant_id == tenant_id,
            found.c.term == term,
            found.c.instance_id == instances.c.instance_id,
        )
        source = source.join(found, condition)
        ordered = found  # the index of terms is sorted by name too
    query = sa.select(ordered.c.name, ordered.c.instance_id, instances.c.snapshot).select_from(source)
    if after is not None:
        position = sa.tuple_(sa.literal(after[0]), sa.cast(after[1], UUID_TEXT))
        query = query.where(sa.tuple_(ordered.c.name, ordered.c.instance_id) > position)
    conditions = _conditions(tenant_id, wanted, kind, state)
    return query.where(*conditions).order_by(ordered.c.name, ordered.c.instance_id).limit(limit)


def _conditions(tenant_id: str, wanted: Selection, kind: str, state: str) -> Iterator[sa.ColumnElement[bool]]:
    columns = instances.c
    yield columns.tenant_id == tenant_id
    if wanted.only is not None:
        yield columns.project_id.in_(sorted(wanted.only))
    yield (
        columns.owner_instance_id.is_not(None)
        if kind in COMPONENT_KINDS
        else columns.owner_instance_id.is_(None)
    )
    equalities = {
        "kind": kind,
        "state": state,
        "project_id": wanted.project_id,
        "name": wanted.name,
        "owner": wanted.owner,
    }
    yield from (columns[name] == value for name, value in equalities.items() if value)
