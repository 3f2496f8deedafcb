"""The queries that read flows and edges as they were at a revision; they change nothing and take no lock.

Triggers record what each change of a flow, edge or instance replaces (the migration `history`). How a row was at a revision
is in the first recorded row that was replaced later, else in the table itself. Freshness is recorded nowhere: it follows from
what is read here (`lineage_service.domain.past`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from lineage_service.domain.flows import Edge, Flow
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.past import Base
from lineage_service.domain.snapshots import SCHEMA
from lineage_service.store.propagation import NO_IDS, format_ids, parse_ids
from lineage_service.store.reads import FLOW_COLUMNS, in_slices, limited
from servicekit import off_loop
from servicekit.database import Connection

_FIRST_PART, _PART = 10_000, 50_000  # flows at most, of those above some flows
_SOON, _LATE = 1.0, 4.0  # seconds that a part takes on a machine that is quick, and on one that is not
_SLICE = 10_000  # characters
_BASE = """
    is_defined, fingerprint, fingerprint_change, computed_fingerprint, verified_run_number, verified_fingerprint,
    version, version_run_number, last_data_date, run_number, last_run_id, last_run_time, ended_run_number,
    outcome_run_number, outcome, completed_run_number, rows_processed, invalidated_run_number, invalidated_reason,
    invalidated_by, computed_revision, readers_hash, full_run_number, partial_run_number, failure_type, failure_message,
    expected_data_date, late_since_time, blocks_readers, accepted_fingerprint, accepted_reason, accepted_by,
    accepted_time, source_token, probed_run_number, probed_token, has_own_cause
"""
_EDGE = ("since_revision", "kind", "is_connected", "consumed_run_id", "consumed_version", "accepted_version")


def _flow(flow_id: str, columns: str) -> str:
    """Return a subquery for columns of a flow as it was; every step is a lookup in an index."""
    return f"""(
        select x.* from (
            (select {columns}, h.until_revision from flow_history h
             where h.tenant_id = :tenant_id and h.flow_id = {flow_id} and h.until_revision > :revision
             order by h.until_revision limit 1)
            union all
            select {columns}, null from flows l where l.tenant_id = :tenant_id and l.flow_id = {flow_id}
        ) x order by x.until_revision nulls last limit 1
    )"""  # noqa: S608 - constants of ours


def _edges(own: str, other: str, flow_id: str) -> str:
    """Return a subquery for the edges of a flow as they were, for one direction; every step is a lookup in an index.

    An edge that is there still may have been replaced since; one that is there no more was recorded when it was deleted.
    """
    then = """
        select h.* from edge_history h
        where h.tenant_id = :tenant_id and h.downstream_id = k.downstream_id and h.upstream_id = k.upstream_id
          and h.role = k.role and h.until_revision > :revision
        order by h.until_revision limit 1
    """
    kept = ", ".join(
        f"case when h.until_revision is null then k.{name} else h.{name} end as {name}" for name in _EDGE
    )
    gone = ", ".join(f"h.{name}" for name in _EDGE)
    return f"""(
        select x.* from (
            select k.{other}, k.role, {kept} from edges k left join lateral ({then}) h on true
            where k.tenant_id = :tenant_id and k.{own} = {flow_id}
            union all
            select k.{other}, k.role, {gone} from (
                select distinct h.downstream_id, h.upstream_id, h.role from edge_history h
                where h.tenant_id = :tenant_id and h.{own} = {flow_id} and h.is_deletion and h.until_revision > :revision
                  and not exists (
                      select from edges e where e.tenant_id = :tenant_id and e.downstream_id = h.downstream_id
                        and e.upstream_id = h.upstream_id and e.role = h.role
                  )
            ) k cross join lateral ({then}) h
        ) x
        where x.since_revision <= :revision
        offset 0
    )"""  # noqa: S608 - constants of ours


def _into(flow_id: str) -> str:
    return _edges("downstream_id", "upstream_id", flow_id)


def _out_of(flow_id: str) -> str:
    return _edges("upstream_id", "downstream_id", flow_id)


_RESOLVE_REVISION = sa.text("""
    select coalesce((select revision from lineage_revisions where tenant_id = :tenant_id), 0), s.revision, s.change_time,
        cast(:revision as bigint),
        (select change_time from revision_times where tenant_id = :tenant_id and revision = :revision)
    from (select 1) one left join history_starts s on s.tenant_id = :tenant_id
""")
_RESOLVE_TIME = sa.text("""
    select coalesce((select revision from lineage_revisions where tenant_id = :tenant_id), 0), s.revision, s.change_time,
        coalesce(t.revision, 0), t.change_time
    from (select 1) one left join history_starts s on s.tenant_id = :tenant_id
    left join lateral (
        select revision, change_time from revision_times
        where tenant_id = :tenant_id and change_time <= :time order by change_time desc, revision desc limit 1
    ) t on true
""")
_FIND = sa.text(f"""
    select f.flow_id from flows f cross join lateral {_flow("f.flow_id", "is_defined")} p
    where f.tenant_id = :tenant_id and f.instance_id = cast(:instance_id as uuid) and f.flow_kind = :flow_kind
      and p.is_defined
""")  # noqa: S608 - constants of ours


def _inputs(flow_id: str) -> str:
    """Return a subquery for the direct upstreams of a flow, and with which of their versions it is compared."""
    return f"""(
        select array_agg(e.upstream_id order by e.upstream_id, e.role) as upstream_ids,
               array_agg(coalesce(e.accepted_version, e.consumed_version) order by e.upstream_id, e.role) as versions
        from {_into(flow_id)} e where e.is_connected
    )"""  # noqa: S608 - constants of ours


# Of some flows and each flow above them, with these: its version, whether it has a cause of its own, and with which versions of
# its direct upstreams it is compared. A flow that is reached in several steps is read again in each, and kept once. The search does not
# reach the flows of `known_ids`, and it ends after so many flows: the database takes a step only if the limit is not reached.
_LIST_BASE = sa.text(f"""
    with recursive above (flow_id, upstream_ids, versions) as (
        select d.flow_id, i.upstream_ids, i.versions
        from unnest(cast(:flow_ids as bigint[])) as d (flow_id) cross join lateral {_inputs("d.flow_id")} i
        union
        select d.flow_id, i.upstream_ids, i.versions
        from (select distinct unnest(a.upstream_ids) from above a) as d (flow_id) cross join lateral {_inputs("d.flow_id")} i
        where d.flow_id not in (select unnest(cast(:known_ids as bigint[])))
    ), part as materialized (
        select flow_id, upstream_ids, versions from above limit :most
    ), states as (
        select cast(array_agg(a.flow_id) as text) as flow_ids, cast(array_agg(p.version) as text) as versions,
               cast(array_agg(a.flow_id) filter (where p.has_own_cause) as text) as with_cause
        from part a cross join lateral {_flow("a.flow_id", "version, has_own_cause")} p
    ), inputs as (
        select cast(array_agg(a.flow_id) as text) as downstream_ids, cast(array_agg(i.upstream_id) as text) as upstream_ids,
               cast(array_agg(i.version) as text) as compared
        from part a cross join lateral unnest(a.upstream_ids, a.versions) as i (upstream_id, version)
    )
    select s.flow_ids, s.versions, s.with_cause, i.downstream_ids, i.upstream_ids, i.compared from states s, inputs i
""")  # noqa: S608 - constants of ours
# The columns of `reads`, from three subqueries of the same names. A version of a flow that was deleted later is kept apart.
_LIST = limited(f"""
    select {FLOW_COLUMNS}
    from unnest(cast(:flow_ids as bigint[])) as d (flow_id)
    join flows o on o.tenant_id = :tenant_id and o.flow_id = d.flow_id
    cross join lateral (
        select o.tenant_id, o.flow_id, o.instance_id, o.flow_kind, p.*, 0 as revision, 0 as stale_revision,
               d.flow_id in (select unnest(cast(:fresh_ids as bigint[]))) as is_fresh
        from {_flow("o.flow_id", _BASE)} p
    ) f
    left join lateral (
        select x.* from (
            (select name, kind, revision, is_deleted, since_revision, h.until_revision from instance_history h
             where h.tenant_id = :tenant_id and h.instance_id = o.instance_id and h.until_revision > :revision
             order by h.until_revision limit 1)
            union all
            select name, kind, revision, is_deleted, since_revision, null from instances l
            where l.tenant_id = :tenant_id and l.instance_id = o.instance_id
        ) x order by x.until_revision nulls last limit 1
    ) i on i.since_revision <= :revision
    left join lateral (
        select run_id, uri, physical_version, digest, change_start, change_end from versions
        where tenant_id = :tenant_id and flow_id = o.flow_id and run_number = f.version_run_number
        union all
        select run_id, uri, physical_version, digest, change_start, change_end from forgotten_versions
        where tenant_id = :tenant_id and flow_id = o.flow_id and run_number = f.version_run_number
        limit 1
    ) v on true
""")  # noqa: S608 - constants of ours
_LIST_EDGES_INTO = limited(f"""
    select e.upstream_id, d.flow_id, e.role, e.kind, e.is_connected, e.consumed_version, e.accepted_version
    from unnest(cast(:flow_ids as bigint[])) as d (flow_id) cross join lateral {_into("d.flow_id")} e
    where e.is_connected or e.consumed_run_id is not null or e.kind = :schema
""")  # noqa: S608 - constants of ours


# Follows edges downwards, and answers their ends as the texts of two arrays: one row, read once.
_ENDS = f"array(select e.downstream_id from {_out_of('d.flow_id')} e where e.is_connected order by 1)"  # noqa: S608 - ours
_LIST_DOWNSTREAM_PAIRS = sa.text(f"""
    with recursive closure (flow_id, others) as (
        select d.flow_id, {_ENDS} from unnest(cast(:flow_ids as bigint[])) as d (flow_id)
        union
        select d.flow_id, {_ENDS} from (select distinct unnest(c.others) from closure c) as d (flow_id)
    )
    select cast(array_agg(c.flow_id) as text), cast(array_agg(o.other) as text)
    from closure c cross join lateral unnest(c.others) as o (other)
""")  # noqa: S608 - constants of ours
_LIST_SETTINGS_READERS = limited(f"""
    select d.flow_id, e.downstream_id
    from unnest(cast(:flow_ids as bigint[])) as d (flow_id) cross join lateral {_out_of("d.flow_id")} e
    where e.kind = :schema
""")  # noqa: S608 - constants of ours


class Known(NamedTuple):
    """A revision that was asked for, and the tenant's newest and oldest ones that can be shown."""

    newest: int
    start_revision: int | None  # None: everything since the beginning can be shown
    start_time: datetime | None
    revision: int
    change_time: datetime | None  # None: not known, or nothing had happened yet


async def find_revision(connection: Connection, tenant_id: str, revision: int) -> Known:
    """Return what is known of a revision."""
    parameters = {"tenant_id": tenant_id, "revision": revision}
    return Known(*(await connection.execute(_RESOLVE_REVISION, parameters)).one())


async def find_revision_at(connection: Connection, tenant_id: str, time: datetime) -> Known:
    """Return the newest revision that a time had; 0 if there was none, or none that is kept."""
    parameters = {"tenant_id": tenant_id, "time": time}
    return Known(*(await connection.execute(_RESOLVE_TIME, parameters)).one())


async def find_flow(connection: Connection, tenant_id: str, revision: int, key: FlowKey) -> int | None:
    """Return the id of a flow by its key; None if no instance defined it then."""
    parameters = {"tenant_id": tenant_id, "revision": revision, **key._asdict()}
    return (await connection.execute(_FIND, parameters)).scalar_one_or_none()


async def add_to_base(
    connection: Connection, tenant_id: str, revision: int, flow_ids: Collection[int], base: Base
) -> None:
    """Add what decides the freshness of flows: that of themselves and of everything above them, unless it is there already."""
    front = [flow_id for flow_id in flow_ids if flow_id not in base.versions]
    if not front:
        return
    known = await off_loop.run_if_large(len(base.versions), format_ids, base.versions)
    part = min(_FIRST_PART, _PART)
    while front:  # in parts, so that no statement takes long and no answer is large
        parameters = {**_scope(tenant_id, revision, front), "known_ids": known, "most": part}
        began = time.monotonic()
        row = (await connection.execute(_LIST_BASE, parameters)).one()
        part = _paced(part, time.monotonic() - began)
        front = await off_loop.run_if_large(_size(row), _add_part, base, front, row)
        known = _joined(known, row[0])


def _paced(part: int, seconds: float) -> int:
    """Return the size of the next part: a busy machine must not take longer for one than a statement may."""
    if seconds > _LATE:
        return max(1, part // 2)
    return min(part + part, _PART) if seconds < _SOON else part


def _add_part(base: Base, front: Collection[int], row: sa.Row[Any]) -> list[int]:
    """Add a part to the facts, and return what of the front, and of the upstreams of the part, is not among them yet."""
    flow_ids, versions, with_own_cause, *edges = row
    for flow_id, version in zip(_ids(flow_ids), _ids(versions), strict=True):
        base.versions[flow_id] = version
    for flow_id in _ids(with_own_cause):
        base.with_own_cause.add(flow_id)
    missing = {flow_id: None for flow_id in front if flow_id not in base.versions}
    for column, text in zip(
        (base.downstream_ids, base.upstream_ids, base.compared_versions), edges, strict=True
    ):
        for value in _ids(text):
            column.append(value)
            if column is base.upstream_ids and value not in base.versions:
                missing[value] = None
    return list(missing)


def _joined(ids: str, more: str) -> str:
    """Return the text of an array with the ids of two such texts, the second of which is not empty."""
    return more if ids == NO_IDS else f"{ids[:-1]},{more[1:]}"


def _size(row: sa.Row[Any]) -> int:
    return sum(len(text or "") for text in row)


def _ids(text: str | None) -> Iterator[int]:
    """Parse the text of an array slice by slice: a conversion of a long text at once would let no other thread run."""
    text = text or NO_IDS
    start, last = 1, len(text) - 1
    while start < last:
        end = text.find(",", start + _SLICE)
        end = end if end >= 0 else last
        yield from parse_ids(f"{{{text[start:end]}}}")
        start = end + 1


async def list_flows(
    connection: Connection,
    tenant_id: str,
    revision: int,
    flow_ids: Collection[int],
    fresh_ids: Collection[int],
) -> list[Flow]:
    """Return flows by their ids, in no particular order; those in `fresh_ids` are fresh."""
    parameters = {**_scope(tenant_id, revision, flow_ids), "fresh_ids": format_ids(fresh_ids)}
    return [Flow(*row) async for row in in_slices(connection, _LIST, parameters)]


async def list_edges_into(
    connection: Connection, tenant_id: str, revision: int, flow_ids: Collection[int]
) -> list[Edge]:
    """Return the edges into flows that the newest revisions had then, or over which a version had been read."""
    parameters = {**_scope(tenant_id, revision, flow_ids), "schema": SCHEMA}
    return [Edge(*row) async for row in in_slices(connection, _LIST_EDGES_INTO, parameters)]


async def list_downstream_pairs(
    connection: Connection, tenant_id: str, revision: int, flow_ids: Collection[int]
) -> list[tuple[int, int]]:
    """Return (upstream, downstream) pairs for all edges below the flows."""
    row = (await connection.execute(_LIST_DOWNSTREAM_PAIRS, _scope(tenant_id, revision, flow_ids))).one()

    def pairs() -> list[tuple[int, int]]:
        upstream_ids, downstream_ids = map(_ids, row)
        return list(dict.fromkeys(zip(upstream_ids, downstream_ids, strict=True)))

    return await off_loop.run_if_large(_size(row), pairs)


async def list_settings_readers(
    connection: Connection, tenant_id: str, revision: int, flow_ids: Sequence[int]
) -> list[tuple[int, int]]:
    """Return (upstream, downstream) pairs for all edges of kind SCHEMA that began at the flows."""
    parameters = {**_scope(tenant_id, revision, flow_ids), "schema": SCHEMA}
    return [(row[0], row[1]) async for row in in_slices(connection, _LIST_SETTINGS_READERS, parameters)]


def _scope(tenant_id: str, revision: int, flow_ids: Collection[int]) -> dict[str, object]:
    return {"tenant_id": tenant_id, "revision": revision, "flow_ids": format_ids(flow_ids)}
