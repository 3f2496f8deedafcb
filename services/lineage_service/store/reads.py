"""What is asked: flows, neighbourhoods and closures; it changes nothing and takes no lock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lineage_service.domain.causes import Graph
from lineage_service.domain.flows import Edge, Flow, FlowKey
from servicekit.database import Database

_COLUMNS = """
    f.flow_id, cast(f.instance_id as text), f.flow_kind, coalesce(i.name, ''), coalesce(i.kind, 0),
    coalesce(i.revision, 0), coalesce(i.is_deleted, false), f.is_defined, f.fingerprint,
    f.fingerprint_change, f.computed_fingerprint, f.version, coalesce(cast(v.run_id as text), ''), coalesce(v.uri, ''), coalesce(v.physical_version, ''),
    coalesce(v.digest, ''), f.last_data_date, f.run_number, coalesce(cast(f.last_run_id as text), ''),
    f.last_run_time, f.ended_run_number, f.outcome_run_number, f.outcome, f.completed_run_number,
    f.rows_processed, f.invalidated_run_number, f.invalidated_reason, f.overdue_date, f.is_fresh, f.revision
"""
_TABLES = """
    flows f
    left join instances i on i.tenant_id = f.tenant_id and i.instance_id = f.instance_id
    left join versions v on v.tenant_id = f.tenant_id and v.flow_id = f.flow_id
                        and v.run_number = f.version_run_number
"""
_LIST = sa.text(f"""
    select {_COLUMNS} from {_TABLES} where f.tenant_id = :tenant_id and f.flow_id = any(:flow_ids)
""")  # noqa: S608 - constants of ours
_GET = sa.text(f"""
    select {_COLUMNS} from {_TABLES}
    where f.tenant_id = :tenant_id and f.instance_id = cast(:instance_id as uuid) and f.flow_kind = :flow_kind
      and f.is_defined
""")  # noqa: S608 - constants of ours
_FIND_IDS = sa.text("""
    select cast(f.instance_id as text), f.flow_kind, f.flow_id
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as d(instance_id, flow_kind)
    join flows f on f.tenant_id = :tenant_id and f.instance_id = d.instance_id and f.flow_kind = d.flow_kind
    where f.is_defined
""")
# The flow itself, its direct upstreams with their roles, and every transitive upstream that is not READY.
_GET_ADMISSION = sa.text(f"""
    with recursive me as materialized (
        select flow_id from flows where tenant_id = :tenant_id and instance_id = cast(:instance_id as uuid)
            and flow_kind = :flow_kind and is_defined
    ), upstreams (flow_id) as (
        select e.upstream_id from me
        join edges e on e.tenant_id = :tenant_id and e.downstream_id = me.flow_id and e.is_connected
        union
        select e.upstream_id from upstreams u
        join edges e on e.tenant_id = :tenant_id and e.downstream_id = u.flow_id and e.is_connected
    ), members as (
        select flow_id, true as is_own from me union all select flow_id, false from upstreams
    )
    select (select revision from lineage_revisions where tenant_id = :tenant_id), m.is_own, r.roles, {_COLUMNS}
    from members m
    join ({_TABLES}) on f.tenant_id = :tenant_id and f.flow_id = m.flow_id
    left join lateral (
        select array_agg(e.role order by e.role) as roles from me
        join edges e on e.tenant_id = :tenant_id and e.downstream_id = me.flow_id and e.is_connected
                    and e.upstream_id = m.flow_id
    ) r on true
    where m.is_own or r.roles is not null or not f.is_fresh or f.run_number > f.ended_run_number
       or f.outcome <> 'succeeded'
""")  # noqa: S608 - constants of ours
_LIST_EDGES_ABOVE = sa.text("""
    with recursive above (flow_id) as (
        select unnest(cast(:flow_ids as bigint[]))
        union
        select u.flow_id from above a
        join edges e on e.tenant_id = :tenant_id and e.downstream_id = a.flow_id and e.is_connected
        join flows u on u.tenant_id = :tenant_id and u.flow_id = e.upstream_id and not u.is_fresh
    )
    select e.upstream_id, e.downstream_id, e.role, e.kind, e.is_connected, e.consumed_version
    from above a join edges e on e.tenant_id = :tenant_id and e.downstream_id = a.flow_id
""")
_LIST_UPSTREAM_PAIRS = sa.text("""
    with recursive closure (flow_id) as (
        select unnest(cast(:flow_ids as bigint[]))
        union
        select e.upstream_id from closure c
        join edges e on e.tenant_id = :tenant_id and e.downstream_id = c.flow_id and e.is_connected
    )
    select distinct e.upstream_id, e.downstream_id from closure c
    join edges e on e.tenant_id = :tenant_id and e.downstream_id = c.flow_id and e.is_connected
    order by 1, 2
""")
_LIST_DOWNSTREAM_PAIRS = sa.text("""
    with recursive closure (flow_id) as (
        select unnest(cast(:flow_ids as bigint[]))
        union
        select e.downstream_id from closure c
        join edges e on e.tenant_id = :tenant_id and e.upstream_id = c.flow_id and e.is_connected
    )
    select distinct e.upstream_id, e.downstream_id from closure c
    join edges e on e.tenant_id = :tenant_id and e.upstream_id = c.flow_id and e.is_connected
    order by 1, 2
""")
_LIST_EDGES_AMONG = sa.text("""
    select e.upstream_id, e.downstream_id, e.role, e.kind, e.is_connected, e.consumed_version
    from edges e where e.tenant_id = :tenant_id and e.downstream_id = any(:flow_ids)
      and e.upstream_id = any(:flow_ids) and e.is_connected
    order by e.downstream_id, e.upstream_id, e.role
""")


class Admission(NamedTuple):
    """What an admission rests on, all of one snapshot."""

    revision: int
    flow: Flow
    direct: list[tuple[Flow, list[str]]]  # with the roles, at least one
    blocking: list[Flow]


async def get_flow(connection: AsyncConnection, tenant_id: str, key: FlowKey) -> Flow | None:
    """Return a defined flow."""
    row = (await connection.execute(_GET, {"tenant_id": tenant_id, **key._asdict()})).one_or_none()
    return None if row is None else Flow(*row)


async def list_flows(connection: AsyncConnection, tenant_id: str, flow_ids: Iterable[int]) -> list[Flow]:
    """Return flows by their ids, in no order."""
    rows = await connection.execute(_LIST, {"tenant_id": tenant_id, "flow_ids": list(flow_ids)})
    return [Flow(*row) for row in rows]


async def find_ids(
    connection: AsyncConnection, tenant_id: str, keys: Collection[FlowKey]
) -> dict[FlowKey, int]:
    """Return the ids of those flows that are defined."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": [key.instance_id for key in keys],
        "flow_kinds": [key.flow_kind for key in keys],
    }
    return {FlowKey(row[0], row[1]): row[2] for row in await connection.execute(_FIND_IDS, parameters)}


async def get_admission(connection: AsyncConnection, tenant_id: str, key: FlowKey) -> Admission | None:
    """Return what decides about a run of the flow, in one statement; None where there is no such flow."""
    return _admission(await connection.execute(_GET_ADMISSION, {"tenant_id": tenant_id, **key._asdict()}))


async def fetch_admission(database: Database, tenant_id: str, key: FlowKey) -> Admission | None:
    """Return the same as `get_admission`, by the shortest way: every submission asks."""
    return _admission(
        await database.fetch(tenant_id, _GET_ADMISSION, {"tenant_id": tenant_id, **key._asdict()})
    )


def _admission(rows: Iterable[Sequence[Any]]) -> Admission | None:
    own: Flow | None = None
    revision = 0
    direct: list[tuple[Flow, list[str]]] = []
    blocking: list[Flow] = []
    for row in rows:
        flow = Flow(*row[3:])
        if row[1]:
            revision, own = row[0] or 0, flow
            continue
        if row[2]:
            direct.append((flow, row[2]))
        if flow.word != "ready":
            blocking.append(flow)
    return None if own is None else Admission(revision, own, direct, blocking)


async def load_causes_graph(connection: AsyncConnection, tenant_id: str, flow_ids: Collection[int]) -> Graph:
    """Return the flows, the not fresh flows above them, and the direct upstreams of all these."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids)}
    edges = [Edge(*row) for row in await connection.execute(_LIST_EDGES_ABOVE, parameters)]
    members = {*flow_ids, *(edge.upstream_id for edge in edges), *(edge.downstream_id for edge in edges)}
    return Graph(await list_flows(connection, tenant_id, members), edges)


async def list_closure(
    connection: AsyncConnection, tenant_id: str, flow_ids: Collection[int], *, is_upstream: bool
) -> list[tuple[int, int]]:
    """Return the pairs (upstream, downstream) of all edges above, or below, the flows."""
    statement = _LIST_UPSTREAM_PAIRS if is_upstream else _LIST_DOWNSTREAM_PAIRS
    rows = await connection.execute(statement, {"tenant_id": tenant_id, "flow_ids": list(flow_ids)})
    return [(row[0], row[1]) for row in rows]


async def list_edges_among(
    connection: AsyncConnection, tenant_id: str, flow_ids: Sequence[int]
) -> list[Edge]:
    """Return the connected edges of which both ends are among the flows."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids)}
    return [Edge(*row) for row in await connection.execute(_LIST_EDGES_AMONG, parameters)]
