"""The queries that propagate freshness over the graph: they visit each flow once and write only flows that change.

The caller must hold the tenant's lock: two propagations at the same time could miss flows that become stale.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from lineage_service.domain.flows import Change, Move
from servicekit.database import Connection
from servicekit.direct import send

# One statement finds the ids and another updates them: in a single statement the planner misjudges small results. The
# ids travel as the text of an array, one for each root, so a hundred thousand ids need no parsing here.
# The planner has no statistics on how many edges a step follows, and one plan serves every graph. So each step is
# written as index lookups: laterals with `offset 0` and scalar subqueries, which the planner does not rewrite, with
# sequential scans disabled. Otherwise the cost on some graphs is the product of all flows and all edges.
_DISABLE_SEQSCAN = sa.text("set local enable_seqscan = off")
_FIND_STALE = sa.text("""
    with recursive stale (flow_id, root) as (
        (
            select e.downstream_id, m.flow_id
            from flows m cross join lateral (
                select e.downstream_id from edges e
                where e.tenant_id = :tenant_id and e.upstream_id = m.flow_id and e.is_connected
                  and e.compared_version <> m.version
                offset 0
            ) e
            where m.tenant_id = :tenant_id and m.flow_id = any(:moved)
              and (select f.is_fresh from flows f where f.tenant_id = :tenant_id and f.flow_id = e.downstream_id)
            union all
            select f.flow_id, f.flow_id from flows f
            where f.tenant_id = :tenant_id and f.flow_id = any(:touched) and f.is_fresh
              and (f.has_own_cause or exists (
                select from edges e
                where e.tenant_id = :tenant_id and e.downstream_id = f.flow_id and e.is_connected
                  and (select not u.is_fresh or u.version <> e.compared_version from flows u
                       where u.tenant_id = :tenant_id and u.flow_id = e.upstream_id)
                offset 0))
        )
        union
        select d.flow_id, d.root from (
            select distinct e.downstream_id, s.root from stale s cross join lateral (
                select e.downstream_id from edges e
                where e.tenant_id = :tenant_id and e.upstream_id = s.flow_id and e.is_connected
                offset 0
            ) e
        ) d (flow_id, root)
        where (select f.is_fresh from flows f where f.tenant_id = :tenant_id and f.flow_id = d.flow_id)
    )
    select root, count(*) filter (where flow_id <> root), cast(array_agg(flow_id) as text)
    from stale group by root
""")
# `region`: the candidates that are not fresh but have no cause of their own, and all such flows below them. A flow of
# the region becomes fresh unless it lies below a flow that stays stale.
_FIND_FRESH = sa.text("""
    with recursive region (flow_id, version) as (
        select f.flow_id, f.version from flows f
        where f.tenant_id = :tenant_id and f.flow_id = any(:candidates) and not f.is_fresh
          and not f.has_own_cause and not exists (
            select from edges e
            where e.tenant_id = :tenant_id and e.downstream_id = f.flow_id and e.is_connected
              and (select u.version <> e.compared_version from flows u
                   where u.tenant_id = :tenant_id and u.flow_id = e.upstream_id)
            offset 0)
        union
        select f.flow_id, f.version from (
            select distinct e.downstream_id from region r cross join lateral (
                select e.downstream_id from edges e
                where e.tenant_id = :tenant_id and e.upstream_id = r.flow_id and e.is_connected
                  and e.compared_version = r.version
                offset 0
            ) e
        ) d (flow_id) cross join lateral (
            select f.flow_id, f.version from flows f
            where f.tenant_id = :tenant_id and f.flow_id = d.flow_id and not f.is_fresh and not f.has_own_cause
              and not exists (
                select from edges e
                where e.tenant_id = :tenant_id and e.downstream_id = f.flow_id and e.is_connected
                  and (select u.version <> e.compared_version from flows u
                       where u.tenant_id = :tenant_id and u.flow_id = e.upstream_id)
                offset 0)
            offset 0
        ) f
    ), blocked (flow_id) as (
        select r.flow_id from region r
        where exists (
            select from edges e
            where e.tenant_id = :tenant_id and e.downstream_id = r.flow_id and e.is_connected
              and e.upstream_id not in (select flow_id from region)
              and (select not u.is_fresh from flows u
                   where u.tenant_id = :tenant_id and u.flow_id = e.upstream_id)
            offset 0)
        union
        select e.downstream_id from blocked b cross join lateral (
            select e.downstream_id from edges e
            where e.tenant_id = :tenant_id and e.upstream_id = b.flow_id and e.is_connected
            offset 0
        ) e
        where (e.downstream_id in (select flow_id from region)) is true -- so that it is hashed, not joined
    )
    select flow_id from region where flow_id not in (select flow_id from blocked)
""")
# Flows that were stale before and depend on a changed flow, or once did. Their freshness does not change, but their
# causes may.
_LIST_READERS = sa.text("""
    select f.flow_id from (
        select distinct e.downstream_id
        from unnest(cast(:flow_ids as bigint[])) as changed (flow_id) cross join lateral (
            select e.downstream_id from edges e
            where e.tenant_id = :tenant_id and e.upstream_id = changed.flow_id
            offset 0
        ) e
    ) d (flow_id) cross join lateral (
        select f.flow_id from flows f
        where f.tenant_id = :tenant_id and f.flow_id = d.flow_id and not f.is_fresh and f.is_defined
          and f.version > 0 and f.revision <> :revision
        offset 0
    ) f
""")
_LIST_BEHIND = sa.text("""
    select e.upstream_id, e.compared_version, cast(array_agg(distinct e.downstream_id) as text)
    from edges e
    where e.tenant_id = :tenant_id and e.upstream_id = any(:moved) and e.is_connected
      and e.compared_version <> (select u.version from flows u
                                 where u.tenant_id = :tenant_id and u.flow_id = e.upstream_id)
    group by e.upstream_id, e.compared_version
    order by e.upstream_id, e.compared_version
""")
# For flows that have just become stale: all upstreams that are not fresh became stale in the same propagation.
_LIST_NOT_FRESH = sa.text("""
    select cast(array_agg(d.flow_id) as text), cast(array_agg(e.upstream_id) as text)
    from unnest(cast(:flow_ids as bigint[])) as d (flow_id) cross join lateral (
        select e.upstream_id from edges e
        where e.tenant_id = :tenant_id and e.downstream_id = d.flow_id and e.is_connected
          and (e.upstream_id in (select unnest(cast(:stale as bigint[])))) is true -- so that it is hashed, not joined
        order by e.upstream_id limit 1
    ) e
""")
_LIST_NAMES = sa.text("""
    select cast(array_agg(f.flow_id) as text), cast(json_agg(i.name) as text)
    from unnest(cast(:flow_ids as bigint[])) as d (flow_id)
    join flows f on f.tenant_id = :tenant_id and f.flow_id = d.flow_id
    join instances i on i.tenant_id = :tenant_id and i.instance_id = f.instance_id
""")
_CHANGE = """
    returning flow_id, cast(instance_id as text), flow_kind, is_defined, run_number, ended_run_number, outcome,
        is_fresh, cast(last_run_id as text), cast(date_part('epoch', last_run_time) * 1000000 as bigint),
        version, last_data_date, rows_processed, expected_data_date,
        cast(date_part('epoch', late_since_time) * 1000000 as bigint),
        outcome = 'succeeded' and completed_run_number > version_run_number, failure_type, failure_message,
        accepted_reason, accepted_by, cast(date_part('epoch', accepted_time) * 1000000 as bigint)
"""
_SET_FRESH = sa.text(f"""
    update flows set is_fresh = :is_fresh, revision = :revision, stale_revision = :revision
    where tenant_id = :tenant_id and flow_id = any(cast(:flow_ids as bigint[])) {_CHANGE}
""")  # noqa: S608 - a constant of ours
_TOUCH = sa.text(f"""
    update flows set revision = :revision
    where tenant_id = :tenant_id and flow_id = any(cast(:flow_ids as bigint[])) {_CHANGE}
""")  # noqa: S608 - a constant of ours


NO_IDS = "{}"


class Reach(NamedTuple):
    """The flows that one root makes stale: how many besides itself, and all ids as the text of an array."""

    root: int
    affected: int
    flow_ids: str


def parse_ids(text: str) -> list[int]:
    """Parse the text of a PostgreSQL array of ids."""
    return list(map(int, text[1:-1].split(","))) if text != NO_IDS else []


def format_ids(flow_ids: Iterable[int]) -> str:
    """Format ids as the text of a PostgreSQL array."""
    return "{" + ",".join(map(str, flow_ids)) + "}"


async def disable_seqscan(connection: Connection) -> None:
    """Turn off sequential scans for the rest of the transaction; call it before the first search."""
    await send(connection, _DISABLE_SEQSCAN)


async def find_stale(
    connection: Connection, tenant_id: str, touched: Collection[int], moves: Sequence[Move]
) -> list[Reach]:
    """Return the flows that stop being fresh, grouped by the root that caused it.

    A root is a flow that moved to a new version, or a touched flow that has become stale itself. The result can hold
    as many ids as roots times flows, so keep both collections small.
    """
    parameters = {
        "tenant_id": tenant_id,
        "touched": list(touched),
        "moved": [move.flow_id for move in moves],
    }
    return [Reach(*row) for row in await connection.execute(_FIND_STALE, parameters)]


async def find_fresh(connection: Connection, tenant_id: str, candidates: Collection[int]) -> list[int]:
    """Return the flows that become fresh now: candidates, and flows that depend on them."""
    parameters = {"tenant_id": tenant_id, "candidates": list(candidates)}
    return list((await connection.execute(_FIND_FRESH, parameters)).scalars())


async def list_dependants(
    connection: Connection, tenant_id: str, flow_ids: Iterable[int], revision: int
) -> set[int]:
    """Return the direct dependants that have output and are not fresh, except those written at this revision."""
    parameters = {"tenant_id": tenant_id, "flow_ids": format_ids(flow_ids), "revision": revision}
    return set((await connection.execute(_LIST_READERS, parameters)).scalars())


class Behind(NamedTuple):
    """A flow that moved, an older version of it, and the ids of the flows compared with that, as the text of an array."""

    upstream_id: int
    compared_version: int
    flow_ids: str


async def list_behind(connection: Connection, tenant_id: str, moves: Collection[Move]) -> list[Behind]:
    """Return the flows that are compared with another version of an upstream than the one it moved to."""
    parameters = {"tenant_id": tenant_id, "moved": [move.flow_id for move in moves]}
    return [Behind(*row) for row in await connection.execute(_LIST_BEHIND, parameters)]


async def list_not_fresh(
    connection: Connection, tenant_id: str, flow_ids: Iterable[int], stale: Iterable[int]
) -> dict[int, int]:
    """Return, for each flow with an upstream among the stale flows, the first such upstream."""
    parameters = {"tenant_id": tenant_id, "flow_ids": format_ids(flow_ids), "stale": format_ids(stale)}
    found, upstream_ids = (await connection.execute(_LIST_NOT_FRESH, parameters)).one()
    return dict(zip(parse_ids(found or NO_IDS), parse_ids(upstream_ids or NO_IDS), strict=True))


async def list_names(connection: Connection, tenant_id: str, flow_ids: Iterable[int]) -> dict[int, str]:
    """Return the name of each flow's instance, by flow id."""
    parameters = {"tenant_id": tenant_id, "flow_ids": format_ids(flow_ids)}
    found, names = (await connection.execute(_LIST_NAMES, parameters)).one()
    return dict(zip(parse_ids(found or NO_IDS), json.loads(names or "[]"), strict=True))


async def set_fresh(
    connection: Connection, tenant_id: str, flow_ids: str, *, is_fresh: bool, revision: int
) -> list[Change]:
    """Set the freshness of flows, given as the text of an array, and return their new states."""
    parameters = {"tenant_id": tenant_id, "flow_ids": flow_ids, "is_fresh": is_fresh, "revision": revision}
    return list(map(Change._make, await connection.execute(_SET_FRESH, parameters)))


async def touch(
    connection: Connection, tenant_id: str, flow_ids: Collection[int], revision: int
) -> list[Change]:
    """Set the revision of flows whose freshness did not change, and return their new states."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids), "revision": revision}
    return list(map(Change._make, await connection.execute(_TOUCH, parameters)))


async def touch_and_find_stale(
    connection: Connection, tenant_id: str, touched: Collection[int], moves: Sequence[Move], revision: int
) -> tuple[list[Change], list[Reach]]:
    """Return the same as `touch` and `find_stale`, in one round trip; sequential scans are off afterwards."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(touched), "revision": revision}
    changes = await send(connection, _TOUCH, parameters)
    await disable_seqscan(connection)
    reaches = await find_stale(connection, tenant_id, touched, moves)
    return list(map(Change._make, changes.rows)), reaches
