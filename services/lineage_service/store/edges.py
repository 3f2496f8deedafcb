"""The queries on edges: revisions connect flows, and completed runs record which versions they consumed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Input
from lineage_service.domain.snapshots import SCHEMA, EdgeSpec
from servicekit.database import Connection
from servicekit.direct import send

# Rows that stay as they are are not written: each change of a row is recorded in its history.
_DISCONNECT = sa.text("""
    update edges e set is_connected = false, kind = 0
    where e.tenant_id = :tenant_id and e.downstream_id = any(:all_downstream_ids) and (e.is_connected or e.kind = :schema)
      and not exists (
        select from unnest(cast(:downstream_ids as bigint[]), cast(:upstream_ids as bigint[]), cast(:roles as text[]))
            as d(downstream_id, upstream_id, role)
        where d.downstream_id = e.downstream_id and d.upstream_id = e.upstream_id and d.role = e.role)
""")
_CONNECT = sa.text("""
    insert into edges (tenant_id, downstream_id, upstream_id, role, kind, is_connected)
    select :tenant_id, d.downstream_id, d.upstream_id, d.role, d.kind, d.kind <> :schema
    from unnest(cast(:downstream_ids as bigint[]), cast(:upstream_ids as bigint[]), cast(:roles as text[]),
                cast(:kinds as smallint[])) as d(downstream_id, upstream_id, role, kind)
    on conflict (tenant_id, downstream_id, upstream_id, role) do update
        set is_connected = excluded.is_connected, kind = excluded.kind
        where (edges.is_connected, edges.kind) is distinct from (excluded.is_connected, excluded.kind)
""")
# The run that produced a version identifies it. Its number is looked up, because a late event may renumber versions.
# An unknown run counts as nothing consumed: it is safer to show a flow stale too often than fresh by mistake.
# An edge that nothing connects, that is not consumed now and for which nothing is accepted is deleted, as `_PRUNE` would.
_CONSUME = sa.text("""
    with given as materialized (
        select d.downstream_id, d.upstream_id, d.role, d.run_id
        from unnest(cast(:downstream_ids as bigint[]), cast(:upstream_ids as bigint[]), cast(:roles as text[]),
                    cast(:run_ids as uuid[])) as d(downstream_id, upstream_id, role, run_id)
        where d.run_id is not null
    ), others as materialized (
        select e.downstream_id, e.upstream_id, e.role,
               not e.is_connected and e.kind <> :schema and e.accepted_version is null as is_useless
        from edges e where e.tenant_id = :tenant_id and e.downstream_id = any(:of_ids)
          and (e.downstream_id, e.upstream_id, e.role) not in (select downstream_id, upstream_id, role from given)
    ), deleted as (
        delete from edges e using others o
        where e.tenant_id = :tenant_id and e.downstream_id = o.downstream_id and e.upstream_id = o.upstream_id
          and e.role = o.role and o.is_useless
    ), unconsumed as (
        update edges e set consumed_run_id = null, consumed_version = 0 from others o
        where e.tenant_id = :tenant_id and e.downstream_id = o.downstream_id and e.upstream_id = o.upstream_id
          and e.role = o.role and not o.is_useless and (e.consumed_version <> 0 or e.consumed_run_id is not null)
    )
    insert into edges (tenant_id, downstream_id, upstream_id, role, consumed_run_id, consumed_version)
    select :tenant_id, g.downstream_id, g.upstream_id, g.role, g.run_id, coalesce(v.version, 0)
    from given g
    left join versions v on v.tenant_id = :tenant_id and v.flow_id = g.upstream_id and v.run_id = g.run_id
    on conflict (tenant_id, downstream_id, upstream_id, role) do update
        set consumed_run_id = excluded.consumed_run_id, consumed_version = excluded.consumed_version
        where (edges.consumed_run_id, edges.consumed_version)
            is distinct from (excluded.consumed_run_id, excluded.consumed_version)
""")
# Where the numbers of the versions that a flow consumed, or that were accepted for it, are not those of the runs.
_UNRESOLVED = """
    left join versions c on c.tenant_id = :tenant_id and c.flow_id = o.upstream_id and c.run_id = o.consumed_run_id
    left join versions a on a.tenant_id = :tenant_id and a.flow_id = o.upstream_id and a.run_id = o.accepted_run_id
    where o.tenant_id = :tenant_id and o.downstream_id = any(:downstream_ids)
      and (o.consumed_version <> coalesce(c.version, 0) or o.accepted_version <> coalesce(a.version, 0))
"""
_LIST_UNRESOLVED = sa.text(f"select distinct o.downstream_id from edges o {_UNRESOLVED}")  # noqa: S608 - a constant of ours
_RESOLVE = sa.text(f"""
    with found as (
        select o.downstream_id, o.upstream_id, o.role, coalesce(c.version, 0) as consumed_version,
               case when o.accepted_version is not null then coalesce(a.version, 0) end as accepted_version
        from edges o {_UNRESOLVED}
    )
    update edges e set consumed_version = f.consumed_version, accepted_version = f.accepted_version from found f
    where e.tenant_id = :tenant_id and e.downstream_id = f.downstream_id and e.upstream_id = f.upstream_id
      and e.role = f.role
    returning e.downstream_id
""")  # noqa: S608 - a constant of ours
_PRUNE = sa.text("""
    delete from edges
    where tenant_id = :tenant_id and downstream_id = any(:downstream_ids)
      and not is_connected and kind <> :schema and consumed_run_id is null and consumed_version = 0
      and accepted_version is null
""")


async def connect(
    connection: Connection,
    tenant_id: str,
    upstreams: Mapping[int, Sequence[EdgeSpec]],
    ids: Mapping[FlowKey, int],
) -> None:
    """Connect each flow (a key of `upstreams`) to exactly the given upstreams; edges of kind SCHEMA are stored unconnected."""
    edges = {
        (downstream_id, ids[edge.upstream], edge.role): edge.kind
        for downstream_id, specs in upstreams.items()
        for edge in specs
    }
    columns = _columns(tenant_id, edges)
    scope = {**columns, "all_downstream_ids": list(upstreams), "schema": SCHEMA}
    await connection.execute(_DISCONNECT, scope)
    if edges:
        await connection.execute(_CONNECT, {**columns, "kinds": list(edges.values()), "schema": SCHEMA})
    await prune(connection, tenant_id, list(upstreams))


async def consume(
    connection: Connection,
    tenant_id: str,
    inputs: Mapping[int, Collection[Input]],
    ids: Mapping[FlowKey, int],
) -> None:
    """Replace the inputs of each flow (a key of `inputs`) by what its newest completed run of all dates read."""
    edges = {
        (downstream_id, ids[item.upstream], item.role): item
        for downstream_id, items in inputs.items()
        for item in items
    }
    parameters = {
        **_columns(tenant_id, edges),
        "run_ids": [item.version_id or None for item in edges.values()],
        "of_ids": list(inputs),
        "schema": SCHEMA,
    }
    await send(connection, _CONSUME, parameters)


async def list_unresolved(
    connection: Connection, tenant_id: str, downstream_ids: Collection[int]
) -> set[int]:
    """Return the flows that are compared with another number than that of a version that they consumed, or was accepted."""
    parameters = {"tenant_id": tenant_id, "downstream_ids": list(downstream_ids)}
    return set((await connection.execute(_LIST_UNRESOLVED, parameters)).scalars())


async def resolve(connection: Connection, tenant_id: str, downstream_ids: Collection[int]) -> set[int]:
    """Give the versions that flows consumed, and those accepted for them, the numbers of their runs; return the flows changed."""
    parameters = {"tenant_id": tenant_id, "downstream_ids": list(downstream_ids)}
    return set((await connection.execute(_RESOLVE, parameters)).scalars())


async def prune(connection: Connection, tenant_id: str, downstream_ids: Sequence[int]) -> None:
    """Delete the edges into flows that nothing connects, that nothing consumed, and for which nothing is accepted."""
    await connection.execute(
        _PRUNE, {"tenant_id": tenant_id, "downstream_ids": list(downstream_ids), "schema": SCHEMA}
    )


def _columns(tenant_id: str, edges: Collection[tuple[int, int, str]]) -> dict[str, object]:
    return {
        "tenant_id": tenant_id,
        "downstream_ids": [downstream_id for downstream_id, _, _ in edges],
        "upstream_ids": [upstream_id for _, upstream_id, _ in edges],
        "roles": [role for _, _, role in edges],
    }
