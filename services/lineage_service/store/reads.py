"""The queries that read flows, their neighbours and their closures; they change nothing and take no lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from lineage_service.domain.causes import Graph
from lineage_service.domain.flows import Edge, Flow, Upstream
from lineage_service.domain.increments import InputChange
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.snapshots import SCHEMA
from servicekit import off_loop
from servicekit.database import Connection, Database

_SLICE = 500  # rows
_FEW = 2_000  # rows that may come at once where each round trip counts
_BYTES_OF_A_FLOW, _BYTES_OF_AN_EDGE = 300, 50  # about


def limited(text: str) -> sa.TextClause:
    """Return a statement for `in_slices`."""
    return sa.text(f"{text} limit cast(:most as bigint)")


# Where the data of a version is read: what is recorded below a root from which it was moved lies below another one.
_URI = """
    case when exists (select from moved_roots where tenant_id = :tenant_id) then coalesce((
        select m.root || substr(v.uri, length(m.former_root) + 1) from moved_roots m
        where m.tenant_id = :tenant_id and starts_with(v.uri, m.former_root || '/' || m.tenant_id || '/')
    ), v.uri, '') else coalesce(v.uri, '') end
"""
FLOW_COLUMNS = f"""
    f.flow_id, cast(f.instance_id as text), f.flow_kind, coalesce(i.name, ''), coalesce(i.kind, 0),
    coalesce(i.revision, 0), coalesce(i.is_deleted, false), f.is_defined, f.fingerprint,
    f.fingerprint_change, f.computed_fingerprint, f.verified_run_number, f.verified_fingerprint, f.version,
    coalesce(cast(v.run_id as text), ''), {_URI}, coalesce(v.physical_version, ''),
    coalesce(v.digest, ''), f.last_data_date, f.run_number, coalesce(cast(f.last_run_id as text), ''),
    f.last_run_time, f.ended_run_number, f.outcome_run_number, f.outcome, f.completed_run_number,
    f.rows_processed, f.invalidated_run_number, f.invalidated_reason, f.is_fresh, f.revision,
    f.computed_revision, f.readers_hash, coalesce(f.full_run_number, f.completed_run_number), f.partial_run_number,
    f.stale_revision, f.expected_data_date, f.late_since_time, f.blocks_readers, f.version_run_number,
    f.invalidated_by, f.failure_type, f.failure_message, coalesce(v.change_start, ''), coalesce(v.change_end, ''),
    f.accepted_fingerprint, f.accepted_reason, f.accepted_by, f.accepted_time, f.source_token,
    f.probed_run_number, f.probed_token
"""
_TABLES = """
    flows f
    left join instances i on i.tenant_id = f.tenant_id and i.instance_id = f.instance_id
    left join versions v on v.tenant_id = f.tenant_id and v.flow_id = f.flow_id
                        and v.run_number = f.version_run_number
"""
_LIST = limited(f"""
    select {FLOW_COLUMNS} from {_TABLES} where f.tenant_id = :tenant_id and f.flow_id = any(:flow_ids)
""")  # noqa: S608 - constants of ours
_LIST_UPSTREAMS = sa.text("""
    select f.flow_id, cast(f.instance_id as text), f.flow_kind, coalesce(i.name, ''),
           coalesce(i.is_deleted, false), f.is_defined, f.version
    from flows f left join instances i on i.tenant_id = f.tenant_id and i.instance_id = f.instance_id
    where f.tenant_id = :tenant_id and f.flow_id = any(:flow_ids)
""")
_GET = sa.text(f"""
    select {FLOW_COLUMNS} from {_TABLES}
    where f.tenant_id = :tenant_id and f.instance_id = cast(:instance_id as uuid) and f.flow_kind = :flow_kind
      and f.is_defined
""")  # noqa: S608 - constants of ours
# One row: with ten thousand flows, rows of their own would take four times as long.
_FIND_IDS = sa.text("""
    select array(
        select f.flow_id
        from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[]))
            with ordinality as d (instance_id, flow_kind, place)
        left join flows f on f.tenant_id = :tenant_id and f.instance_id = d.instance_id and f.flow_kind = d.flow_kind
                         and f.is_defined
        order by d.place
    )
""")
# The steps of closures are lookups in an index, as in `propagation`: a planner that misjudges a step reads all edges in each.
# Selects each flow, its direct upstreams with what has changed in them by role, and every transitive upstream that is not READY.
# All that is below a flow that is not fresh is not fresh either, so `stale` walks from one such flow to the next. A fresh
# upstream can be RUNNING or ERROR as well: `unsettled` has all such flows of the tenant, usually few, and only if there are any,
# `above` looks for them among all upstreams.
# A version says its changed dates relative to the version that its run built on: they count if that is the one before it.
_GET_ADMISSIONS = limited(f"""
    with recursive roots as materialized (
        select f.flow_id
        from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as d(instance_id, flow_kind)
        join flows f on f.tenant_id = :tenant_id and f.instance_id = d.instance_id and f.flow_kind = d.flow_kind
                    and f.is_defined
    ), direct (root, flow_id, is_fresh) as materialized (
        select distinct r.flow_id, e.upstream_id, e.is_fresh from roots r cross join lateral (
            select e.upstream_id,
                   (select u.is_fresh from flows u where u.tenant_id = :tenant_id and u.flow_id = e.upstream_id) as is_fresh
            from edges e where e.tenant_id = :tenant_id and e.downstream_id = r.flow_id and e.is_connected offset 0
        ) e
    ), unsettled (flow_id) as materialized (
        select flow_id from flows
        where tenant_id = :tenant_id and (run_number > ended_run_number or outcome = 'failed') and is_fresh
    ), above (root, flow_id) as (
        select root, flow_id from direct where exists (select from unsettled where unsettled.flow_id <> direct.root)
        union
        select a.root, e.upstream_id from above a cross join lateral (
            select e.upstream_id from edges e
            where e.tenant_id = :tenant_id and e.downstream_id = a.flow_id and e.is_connected offset 0
        ) e
    ), stale (root, flow_id) as (
        select root, flow_id from direct where not is_fresh
        union
        select s.root, e.upstream_id from stale s cross join lateral (
            select e.upstream_id from edges e
            where e.tenant_id = :tenant_id and e.downstream_id = s.flow_id and e.is_connected
              and not (select u.is_fresh from flows u where u.tenant_id = :tenant_id and u.flow_id = e.upstream_id) offset 0
        ) e
    ), members (root, flow_id, is_direct) as (
        select root, flow_id, bool_or(is_direct) from (
            select flow_id, flow_id, false from roots
            union all select root, flow_id, true from direct
            union all select root, flow_id, false from stale
            union all select root, flow_id, false from above where flow_id in (select flow_id from unsettled)
        ) as every (root, flow_id, is_direct) group by root, flow_id
    )
    select m.root, (select revision from lineage_revisions where tenant_id = :tenant_id), r.roles, f.*
    from members m
    cross join lateral (
        select {FLOW_COLUMNS} from {_TABLES} where f.tenant_id = :tenant_id and f.flow_id = m.flow_id offset 0
    ) f
    left join lateral (
        select jsonb_agg(jsonb_build_array(
                   e.role, e.consumed_version, coalesce(c.readers_hash, ''),
                   coalesce(n.known = f.version - e.consumed_version, false), coalesce(n.start, ''), coalesce(n.last, '')
               ) order by e.role) as roles
        from edges e
        left join versions c on c.tenant_id = :tenant_id and c.flow_id = e.upstream_id and c.run_id = e.consumed_run_id
        left join lateral (
            select count(*) filter (where o.change_start <> '' and b.version = o.version - 1) as known,
                   min(o.change_start) as start, max(o.change_end) as last
            from (
                select distinct on (w.version) w.version, w.base_run_id, w.change_start, w.change_end from versions w
                where e.consumed_version > 0 and w.tenant_id = :tenant_id and w.flow_id = e.upstream_id
                  and w.version > e.consumed_version and w.version <= f.version
                order by w.version, w.run_number
            ) o
            left join versions b on b.tenant_id = :tenant_id and b.flow_id = e.upstream_id and b.run_id = o.base_run_id
        ) n on true
        where m.is_direct and e.tenant_id = :tenant_id and e.downstream_id = m.root and e.upstream_id = m.flow_id
          and e.is_connected
    ) r on true
""")  # noqa: S608 - constants of ours
_LIST_EDGES_ABOVE = limited("""
    with recursive above (flow_id) as (
        select unnest(cast(:flow_ids as bigint[]))
        union
        select u.flow_id from above a
        join edges e on e.tenant_id = :tenant_id and e.downstream_id = a.flow_id and e.is_connected
        join flows u on u.tenant_id = :tenant_id and u.flow_id = e.upstream_id and not u.is_fresh
    )
    select e.upstream_id, e.downstream_id, e.role, e.kind, e.is_connected, e.consumed_version,
           e.accepted_version
    from above a join edges e on e.tenant_id = :tenant_id and e.downstream_id = a.flow_id
                             and (e.is_connected or e.consumed_run_id is not null)
""")
_LIST_EDGES_INTO = limited("""
    select e.upstream_id, e.downstream_id, e.role, e.kind, e.is_connected, e.consumed_version,
           e.accepted_version
    from edges e where e.tenant_id = :tenant_id and e.downstream_id = any(:flow_ids)
                   and (e.is_connected or e.consumed_run_id is not null)
""")
_LIST_EDGES_AMONG = limited("""
    select e.upstream_id, e.downstream_id, e.role, e.kind, e.is_connected, e.consumed_version,
           e.accepted_version
    from edges e where e.tenant_id = :tenant_id and e.downstream_id = any(:flow_ids)
      and e.upstream_id = any(:flow_ids) and (e.is_connected or e.kind = :schema)
    order by e.downstream_id, e.upstream_id, e.role
""")
# Flows at the other end of an edge that only names settings.
_LIST_SCHEMA_NEIGHBOURS = limited("""
    select e.upstream_id, e.downstream_id from edges e
    where e.tenant_id = :tenant_id and e.downstream_id = any(:flow_ids) and e.kind = :schema
    union
    select e.upstream_id, e.downstream_id from edges e
    where e.tenant_id = :tenant_id and e.upstream_id = any(:flow_ids) and e.kind = :schema
    order by 1, 2
""")


class AdmissionFacts(NamedTuple):
    """The facts that decide whether a run may start, all read from one database snapshot."""

    revision: int
    flow: Flow
    direct: list[tuple[Flow, list[InputChange]]]  # with what has changed in each role: at least one each
    blocking: list[Flow]


async def get_flow(connection: Connection, tenant_id: str, key: FlowKey) -> Flow | None:
    """Return a flow by its key; None if no instance defines it."""
    row = (await connection.execute(_GET, {"tenant_id": tenant_id, **key._asdict()})).one_or_none()
    return None if row is None else Flow(*row)


async def list_flows(connection: Connection, tenant_id: str, flow_ids: Iterable[int]) -> list[Flow]:
    """Return flows by their ids, in no particular order."""
    ids = list(flow_ids)
    parameters = {"tenant_id": tenant_id, "flow_ids": ids}
    return [Flow(*row) async for row in in_slices(connection, _LIST, parameters, len(ids))]


async def list_upstreams(
    connection: Connection, tenant_id: str, flow_ids: Iterable[int]
) -> dict[int, Upstream]:
    """Return, by flow id, the fields of flows that causes need."""
    rows = await connection.execute(_LIST_UPSTREAMS, {"tenant_id": tenant_id, "flow_ids": list(flow_ids)})
    return {row[0]: Upstream._make(row) for row in rows}


async def find_ids(connection: Connection, tenant_id: str, keys: Collection[FlowKey]) -> dict[FlowKey, int]:
    """Return the ids of those flows that an instance defines."""
    found = (await connection.execute(_FIND_IDS, _keys(tenant_id, keys))).scalar_one()
    return {key: flow_id for key, flow_id in zip(keys, found, strict=True) if flow_id is not None}


async def get_admissions(
    connection: Connection, tenant_id: str, keys: Collection[FlowKey], expected: int
) -> dict[FlowKey, AdmissionFacts]:
    """Return the admission facts of the flows with one statement; unknown flows are left out.

    Each of the flows has a row, and each of their upstreams that counts; `expected` says about how many come.
    """
    rows = [row async for row in in_slices(connection, _GET_ADMISSIONS, _keys(tenant_id, keys), expected)]
    return await off_loop.run_if_large(len(rows) * _BYTES_OF_A_FLOW, _admissions, rows)


async def fetch_admissions(
    database: Database, tenant_id: str, keys: Collection[FlowKey]
) -> dict[FlowKey, AdmissionFacts] | None:
    """Return the same as `get_admissions` in a single round trip, because every submission calls it; None if it has many rows.

    Then ask for each flow alone: a thousand flows may have as many upstreams each as there are in the tenant.
    """
    parameters = {**_keys(tenant_id, keys), "most": _FEW + 1}
    rows = await database.fetch(tenant_id, _GET_ADMISSIONS, parameters)
    return _admissions(rows) if len(rows) <= _FEW else None


async def fetch_admission(database: Database, tenant_id: str, key: FlowKey) -> AdmissionFacts | None:
    """Return the admission facts of a flow, as a rule in a single round trip; None if it is unknown."""
    found = await fetch_admissions(database, tenant_id, [key])
    if found is None:
        async with database.read(tenant_id) as connection:
            found = await get_admissions(connection, tenant_id, [key], expected=_FEW + 1)
    return found.get(key)


def _keys(tenant_id: str, keys: Collection[FlowKey]) -> dict[str, object]:
    return {
        "tenant_id": tenant_id,
        "instance_ids": [key.instance_id for key in keys],
        "flow_kinds": [key.flow_kind for key in keys],
    }


def _admissions(rows: Iterable[Sequence[Any]]) -> dict[FlowKey, AdmissionFacts]:
    found: dict[int, AdmissionFacts] = {}
    others: list[tuple[int, Flow, list[list[Any]] | None]] = []
    for root, revision, roles, *columns in rows:
        flow = Flow(*columns)
        if flow.flow_id == root:
            found[root] = AdmissionFacts(revision or 0, flow, [], [])
        else:
            others.append((root, flow, roles))
    for root, flow, roles in sorted(others, key=lambda other: other[1].flow_id):  # always in the same order
        if roles:
            found[root].direct.append((flow, [InputChange(*role) for role in roles]))
        if flow.word != "ready":
            found[root].blocking.append(flow)
    return {admission.flow.key: admission for admission in found.values()}


async def load_causes_graph(connection: Connection, tenant_id: str, flow_ids: Collection[int]) -> Graph:
    """Return a graph of the flows, all flows above them that are not fresh, and the direct upstreams of both."""
    return await _load_graph(connection, tenant_id, flow_ids, _LIST_EDGES_ABOVE)


async def load_direct_graph(connection: Connection, tenant_id: str, flow_ids: Collection[int]) -> Graph:
    """Return a graph of the flows and their direct upstreams."""
    return await _load_graph(connection, tenant_id, flow_ids, _LIST_EDGES_INTO)


async def _load_graph(
    connection: Connection, tenant_id: str, flow_ids: Collection[int], edges_of: sa.TextClause
) -> Graph:
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids)}
    edges = [Edge(*row) async for row in in_slices(connection, edges_of, parameters, len(flow_ids))]
    members = {*flow_ids, *(edge.upstream_id for edge in edges), *(edge.downstream_id for edge in edges)}
    flows = await list_flows(connection, tenant_id, members)
    return await off_loop.run_if_large(len(edges) * _BYTES_OF_AN_EDGE, Graph, flows, edges)


async def in_slices(
    connection: Connection,
    statement: sa.TextClause,
    parameters: Mapping[str, object],
    expected: int = 0,
    most: int | None = None,
) -> AsyncIterator[sa.Row[Any]]:
    """Yield the rows of a statement, `most` of them, that may be very many; others have their turn of the event loop in between.

    Few rows, as usual, take one round trip. More are read again, through a cursor of the server; at once, if so many are expected.
    """
    rows: Sequence[sa.Row[Any]]
    if expected <= _SLICE:
        few = _SLICE + 1 if most is None else min(most, _SLICE + 1)
        rows = (await connection.execute(statement, {**parameters, "most": few})).all()
        if len(rows) <= _SLICE:
            for row in rows:
                yield row
            return
        del rows
        await asyncio.sleep(0)  # rows that have arrived already cost no turn of the loop
    options = {"yield_per": _SLICE}
    async with connection.stream(
        statement, {**parameters, "most": most}, execution_options=options
    ) as result:
        async for rows in result.partitions(_SLICE):
            await asyncio.sleep(0)
            for row in rows:
                yield row


async def list_edges_among(connection: Connection, tenant_id: str, flow_ids: Sequence[int]) -> list[Edge]:
    """Return the edges of the newest revisions whose two ends are both in the list of flows, those of kind SCHEMA included."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids), "schema": SCHEMA}
    return [Edge(*row) async for row in in_slices(connection, _LIST_EDGES_AMONG, parameters)]


async def list_schema_neighbours(
    connection: Connection, tenant_id: str, flow_ids: Sequence[int]
) -> list[tuple[int, int]]:
    """Return (upstream, downstream) pairs for all edges of kind SCHEMA that begin or end at the flows."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids), "schema": SCHEMA}
    return [(row[0], row[1]) async for row in in_slices(connection, _LIST_SCHEMA_NEIGHBOURS, parameters)]
