"""The queries along the edges between flows; each recursion uses UNION, so it ends even if there is a cycle."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from optaic.rules import roles
from servicekit.database import Connection

_REACHES_ITSELF = sa.text("""
    with recursive ancestors (instance_id) as (
        select upstream_instance_id from flow_edges
        where tenant_id = :tenant_id and instance_id = cast(:instance_id as uuid)
            and upstream_instance_id <> cast(:instance_id as uuid)
        union
        select edge.upstream_instance_id from flow_edges as edge
        join ancestors on edge.tenant_id = :tenant_id and edge.instance_id = ancestors.instance_id
    )
    select 1 from ancestors where instance_id = cast(:instance_id as uuid)
""")
_ANCESTOR_EDGES = sa.text("""
    with recursive ancestors (instance_id) as (
        select cast(:instance_id as uuid)
        union
        select edge.upstream_instance_id from flow_edges as edge
        join ancestors on edge.tenant_id = :tenant_id and edge.instance_id = ancestors.instance_id
    )
    select distinct cast(edge.instance_id as text), cast(edge.upstream_instance_id as text), instances.name
    from flow_edges as edge
    join instances on instances.tenant_id = :tenant_id and instances.instance_id = edge.upstream_instance_id
    where edge.tenant_id = :tenant_id and edge.instance_id in (select instance_id from ancestors)
        and edge.instance_id <> edge.upstream_instance_id
""")
_DATASET_ANCESTORS = sa.text("""
    with recursive ancestors (instance_id) as (
        select cast(:instance_id as uuid)
        union
        select edge.upstream_instance_id from flow_edges as edge
        join ancestors on edge.tenant_id = :tenant_id and edge.instance_id = ancestors.instance_id
    )
    select cast(instances.instance_id as text), not exists (
        select from flow_edges as edge where edge.tenant_id = :tenant_id
            and edge.instance_id = instances.instance_id and edge.upstream_instance_id <> instances.instance_id
    ) as is_root
    from ancestors join instances
        on instances.tenant_id = :tenant_id and instances.instance_id = ancestors.instance_id
    where instances.kind = 'dataset' and instances.instance_id <> cast(:instance_id as uuid)
""")
_DESCENDANT_EDGES = sa.text("""
    with recursive descendants (instance_id) as (
        select unnest(cast(:instance_ids as uuid[]))
        union
        select edge.instance_id from flow_edges as edge
        join descendants on edge.tenant_id = :tenant_id and edge.upstream_instance_id = descendants.instance_id
    )
    select distinct cast(edge.instance_id as text), cast(edge.upstream_instance_id as text)
    from flow_edges as edge
    join descendants on edge.tenant_id = :tenant_id and edge.upstream_instance_id = descendants.instance_id
    where edge.instance_id <> edge.upstream_instance_id
""")
_FREED = sa.text("""
    select distinct cast(instances.instance_id as text)
    from flow_edges as edge join instances
        on instances.tenant_id = :tenant_id and instances.instance_id = edge.upstream_instance_id
    where edge.tenant_id = :tenant_id and edge.instance_id = any(cast(:instance_ids as uuid[]))
        and instances.state = 'deleting' and not instances.instance_id = any(cast(:instance_ids as uuid[]))
        and not exists (
            select from flow_edges as other where other.tenant_id = :tenant_id
                and other.upstream_instance_id = instances.instance_id
                and other.instance_id <> instances.instance_id
                and not other.instance_id = any(cast(:instance_ids as uuid[]))
        )
""")
# With the definition version whose rules for upstreams apply to the reader: its own or its pipeline's.
_READERS = sa.text("""
    select edge.role, reader.snapshot, version.snapshot
    from (select distinct instance_id, role from flow_edges
          where tenant_id = :tenant_id and upstream_instance_id = cast(:instance_id as uuid)
              and instance_id <> cast(:instance_id as uuid)) as edge
    join instances as reader on reader.tenant_id = :tenant_id and reader.instance_id = edge.instance_id
    left join datasets on datasets.tenant_id = :tenant_id and datasets.instance_id = reader.instance_id
    left join components on components.tenant_id = :tenant_id
        and components.instance_id = coalesce(datasets.pipeline_instance_id, reader.instance_id)
    left join definition_versions as version on version.tenant_id = :tenant_id
        and version.definition_version_id = components.definition_version_id
    where reader.state <> 'deleting' order by reader.name, reader.instance_id, edge.role
""")


# The backtests that name one of these optimizers, each as often as it names one.
_LIST_OPTIMIZED = sa.text("""
    select cast(edge.instance_id as text), cast(edge.upstream_instance_id as text) from flow_edges as edge
    join instances on instances.tenant_id = :tenant_id and instances.instance_id = edge.instance_id
    where edge.tenant_id = :tenant_id and edge.upstream_instance_id = any(cast(:instance_ids as uuid[]))
        and edge.flow_kind = 'backtest' and edge.role = :role and instances.state <> 'deleting'
    order by 1, 2
""")


async def list_optimized(
    connection: Connection, tenant_id: str, optimizer_ids: Sequence[str]
) -> list[tuple[str, str]]:
    """Return (backtest, optimizer) of the backtests that name one of the optimizers and are not being deleted."""
    parameters = {"tenant_id": tenant_id, "instance_ids": list(optimizer_ids), "role": roles.OPTIMIZER}
    return [(row[0], row[1]) for row in await connection.execute(_LIST_OPTIMIZED, parameters)]


async def has_cycle(connection: Connection, tenant_id: str, instance_id: str) -> bool:
    """Return whether the instance is its own ancestor."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id}
    return (await connection.execute(_REACHES_ITSELF, parameters)).first() is not None


async def list_ancestor_edges(
    connection: Connection, tenant_id: str, instance_id: str
) -> list[tuple[str, str, str]]:
    """Return (instance, upstream, upstream's name) between an instance and its ancestors."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id}
    return [(row[0], row[1], row[2]) for row in await connection.execute(_ANCESTOR_EDGES, parameters)]


async def list_dataset_ancestors(
    connection: Connection, tenant_id: str, instance_id: str
) -> list[tuple[str, bool]]:
    """Return (dataset, whether it has no upstreams) for all datasets among an instance's ancestors."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id}
    return [(row[0], row[1]) for row in await connection.execute(_DATASET_ANCESTORS, parameters)]


async def list_descendant_edges(
    connection: Connection, tenant_id: str, instance_ids: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the edges (reader, read) from the instances to all their dependants, direct and indirect."""
    parameters = {"tenant_id": tenant_id, "instance_ids": list(instance_ids)}
    return [(row[0], row[1]) for row in await connection.execute(_DESCENDANT_EDGES, parameters)]


async def list_dependants(
    connection: Connection, tenant_id: str, instance_id: str
) -> list[tuple[str, bytes, bytes | None]]:
    """Return (role, reader, definition version with its rules), serialized, of all dependants that are not being deleted."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id}
    return [(row[0], row[1], row[2]) for row in await connection.execute(_READERS, parameters)]


async def list_freed(connection: Connection, tenant_id: str, instance_ids: Sequence[str]) -> list[str]:
    """Return the instances under deletion whose only readers are the given ones."""
    parameters = {"tenant_id": tenant_id, "instance_ids": list(instance_ids)}
    return list((await connection.execute(_FREED, parameters)).scalars())
