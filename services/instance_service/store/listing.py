"""The query that lists instances: a page costs what is on it, however many instances there are.

Each filter is an equality that an index answers in the order of names, and every operator in it is leakproof:
under row-level security no index serves any other.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from instance_service.store.tables import instance_terms, instances
from optaic.rules.kinds import COMPONENT_KINDS
from servicekit.pages import MOST_BYTES
from servicekit.schema import UUID_TEXT

# What is rare and what is common wants another plan, and a prepared statement would end up with one for all.
_PLAN_ANEW = sa.text("set local plan_cache_mode = force_custom_plan")


@dataclass(frozen=True)
class Selection:
    """Which instances; empty parts leave it open, without kinds all but components."""

    project_id: str = ""
    kinds: Sequence[str] = ()
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    states: Sequence[str] = ()
    owner: str = ""
    definition_id: str = ""


def label_term(key: str, value: str) -> str:
    """Return what an instance with this label is found by."""
    text = f"{len(key)}:{key}{value}".encode()
    return str(uuid.UUID(bytes=hashlib.sha256(text).digest()[:16]))


async def list_instances(
    connection: AsyncConnection, tenant_id: str, wanted: Selection, after: tuple[str, str] | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return (name, id, serialized instance) by name, after a position (name, id)."""
    await connection.execute(_PLAN_ANEW)
    page = within_bytes(page_of(tenant_id, wanted, after, limit), "name", "instance_id")
    return (await connection.execute(page)).all()


def within_bytes(page: sa.Select[Any], *order: str, is_descending: bool = False) -> sa.Select[Any]:
    """Return the query of a page that is read no further than to the first snapshot that does not fit on it."""

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
    """Return the query of a page."""
    terms = [label_term(key, value) for key, value in wanted.labels.items()]
    if wanted.definition_id:
        terms.append(wanted.definition_id)
    parts = [
        _part(tenant_id, wanted, terms, kind, state, after, limit)
        for kind, state in itertools.product(wanted.kinds or [""], wanted.states or [""])
    ]
    if len(parts) == 1:
        return parts[0]
    # Each part is in order and is read no further than the page goes.
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
        ordered = found  # the index of terms is in the order of names too
    query = sa.select(ordered.c.name, ordered.c.instance_id, instances.c.snapshot).select_from(source)
    if after is not None:
        position = sa.tuple_(sa.literal(after[0]), sa.cast(after[1], UUID_TEXT))
        query = query.where(sa.tuple_(ordered.c.name, ordered.c.instance_id) > position)
    conditions = _conditions(tenant_id, wanted, kind, state)
    return query.where(*conditions).order_by(ordered.c.name, ordered.c.instance_id).limit(limit)


def _conditions(tenant_id: str, wanted: Selection, kind: str, state: str) -> Iterator[sa.ColumnElement[bool]]:
    columns = instances.c
    yield columns.tenant_id == tenant_id
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
