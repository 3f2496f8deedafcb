"""Queries along the flow-to-flow edges; every traversal is a UNION, so that a cycle could not trap it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

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
_DEPENDANTS = sa.text("""
    select distinct cast(instances.instance_id as text) as instance_id, instances.name, instances.kind
    from flow_edges as edge join instances
        on instances.tenant_id = :tenant_id and instances.instance_id = edge.instance_id
    where edge.tenant_id = :tenant_id and edge.upstream_instance_id = cast(:instance_id as uuid)
        and edge.instance_id <> edge.upstream_instance_id and instances.state <> 'deleting'
    order by instances.name
""")


async def has_cycle(connection: AsyncConnection, tenant_id: str, instance_id: str) -> bool:
    """Return whether the instance is its own ancestor."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id}
    return (await connection.execute(_REACHES_ITSELF, parameters)).first() is not None


async def list_ancestor_edges(
    connection: AsyncConnection, tenant_id: str, instance_id: str
) -> list[tuple[str, str, str]]:
    """Return (instance, upstream, upstream's name) between an instance and its ancestors."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id}
    return [(row[0], row[1], row[2]) for row in await connection.execute(_ANCESTOR_EDGES, parameters)]


async def list_dataset_ancestors(
    connection: AsyncConnection, tenant_id: str, instance_id: str
) -> list[tuple[str, bool]]:
    """Return (dataset, whether it reads nothing itself) over all ancestors of an instance."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id}
    return [(row[0], row[1]) for row in await connection.execute(_DATASET_ANCESTORS, parameters)]


async def list_dependants(
    connection: AsyncConnection, tenant_id: str, instance_id: str
) -> Sequence[sa.Row[Any]]:
    """Return (id, name, kind) of the live instances that read the instance, by name."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id}
    return (await connection.execute(_DEPENDANTS, parameters)).all()
