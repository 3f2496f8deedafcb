"""The queries on instances, their revisions and their extension rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instance_service.store import tables
from instance_service.store.listing import within_bytes
from instance_service.store.tables import instance_revisions as revisions
from instance_service.store.tables import instances
from servicekit.database import Connection, Database

Rows = Mapping[sa.Table, Sequence[Mapping[str, Any]]]

_EXTENSIONS = (
    tables.instance_terms,
    tables.macro_uses,
    tables.components,
    tables.datasets,
    tables.signals,
    tables.backtests,
    tables.experiments,
    tables.models,
    tables.portfolio_optimizers,
    tables.flow_edges,
    tables.flows,
)
# Every submission runs it, so its text is a constant instead of being built for each call.
_GET_SNAPSHOTS = sa.text("""
    select cast(instance_id as text), snapshot from instances
    where tenant_id = :tenant_id and instance_id = any(cast(:instance_ids as uuid[]))
""")
_RESOLVE = sa.text("""
    select wanted.position, found.snapshot
    from unnest(cast(:kinds as text[]), cast(:definition_ids as uuid[]), cast(:names as text[]),
        cast(:version_ids as uuid[]), cast(:versions as text[]), cast(:held_ids as uuid[]))
        with ordinality as wanted (kind, definition_id, name, version_id, version, held_id, position)
    join definitions on definitions.tenant_id = :tenant_id and definitions.kind = wanted.kind
        and (wanted.definition_id is null or definitions.definition_id = wanted.definition_id)
        and (wanted.name = '' or definitions.name = wanted.name)
    join lateral (
        select snapshot from definition_versions as candidate
        where candidate.tenant_id = :tenant_id and candidate.definition_id = definitions.definition_id
            and (wanted.version_id is null or candidate.definition_version_id = wanted.version_id)
            and (wanted.version = '' or candidate.version = wanted.version)
            and (wanted.version_id is not null or wanted.version <> '' or candidate.state = 'active'
                -- An instance that tracks the newest version never goes back, even if its version is retired.
                or (candidate.definition_version_id = wanted.held_id and candidate.state <> 'draft'))
        order by candidate.precedence desc, candidate.definition_version_id desc limit 1
    ) as found on true
""")
_UPDATE_STATES = sa.text("""
    update instances set state = given.state, update_time = given.update_time, snapshot = given.snapshot
    from unnest(cast(:ids as uuid[]), cast(:states as text[]), cast(:times as timestamptz[]),
            cast(:snapshots as bytea[])) as given (instance_id, state, update_time, snapshot)
    where instances.tenant_id = :tenant_id and instances.instance_id = given.instance_id
""")
_UPDATE_FLOWS = sa.text("""
    update flows set prefect_deployment_id = given.deployment_id
    from unnest(cast(:ids as uuid[]), cast(:flow_kinds as text[]), cast(:deployment_ids as text[]))
        as given (instance_id, flow_kind, deployment_id)
    where flows.tenant_id = :tenant_id and flows.instance_id = given.instance_id
        and flows.flow_kind = given.flow_kind and flows.prefect_deployment_id <> given.deployment_id
""")
_UPDATE_MODELS = sa.text("""
    update models set mlflow_experiment_id = given.experiment_id,
        mlflow_registered_model_name = given.registered_name, evidently_project_id = given.project_id
    from unnest(cast(:ids as uuid[]), cast(:experiment_ids as text[]), cast(:registered_names as text[]),
            cast(:project_ids as text[])) as given (instance_id, experiment_id, registered_name, project_id)
    where models.tenant_id = :tenant_id and models.instance_id = given.instance_id
""")
_UPDATE_SNAPSHOTS = sa.text("""
    update instances set snapshot = given.snapshot
    from unnest(cast(:ids as uuid[]), cast(:snapshots as bytea[])) as given (instance_id, snapshot)
    where instances.tenant_id = :tenant_id and instances.instance_id = given.instance_id
""")
_REWRITE_TEXTS = sa.text("""
    with given as (
        select * from unnest(cast(:ids as uuid[]), cast(:revisions as bigint[]), cast(:snapshots as bytea[]),
                             cast(:configs as jsonb[])) as given (instance_id, revision, snapshot, config)
    ), rewritten as (
        update instance_revisions set snapshot = given.snapshot from given
        where instance_revisions.tenant_id = :tenant_id and instance_revisions.instance_id = given.instance_id
            and instance_revisions.revision = given.revision
    ), configured as (
        update components set config = given.config from given
        where components.tenant_id = :tenant_id and components.instance_id = given.instance_id
    )
    update instances set snapshot = given.snapshot from given
    where instances.tenant_id = :tenant_id and instances.instance_id = given.instance_id
""")
_REMOVE_FINALIZER = sa.text("""
    update instances set finalizers = array_remove(finalizers, :finalizer)
    where tenant_id = :tenant_id and instance_id = any(cast(:instance_ids as uuid[])) and state = 'deleting'
    returning cast(instance_id as text), finalizers, snapshot
""")


async def insert_instances(connection: Connection, rows: Rows) -> None:
    """Insert new instances with all their rows; owners must come before their components."""
    for table in (instances, revisions, *reversed(_EXTENSIONS)):
        if rows.get(table):
            await connection.execute(sa.insert(table), list(rows[table]))


async def replace_instances(
    connection: Connection, tenant_id: str, instance_ids: Sequence[str], rows: Rows
) -> None:
    """Replace the extension rows of instances, update their own rows and add their new revisions."""
    for table in _EXTENSIONS:
        await connection.execute(
            sa.delete(table).where(table.c.tenant_id == tenant_id, table.c.instance_id.in_(instance_ids))
        )
    await update_rows(connection, rows[instances])
    await insert_instances(connection, {table: rows[table] for table in rows if table is not instances})


async def update_rows(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rewrite the rows of instances in the table `instances`."""
    columns = (
        "name", "kind", "owner", "state", "revision", "finalizers", "snapshot", "update_time",
    )  # fmt: skip
    await connection.execute(
        sa.update(instances)
        .where(
            instances.c.tenant_id == sa.bindparam("key_tenant"),
            instances.c.instance_id == sa.bindparam("key_id"),
        )
        .values({name: sa.bindparam(f"new_{name}", type_=instances.c[name].type) for name in columns}),
        [
            {"key_tenant": row["tenant_id"], "key_id": row["instance_id"]}
            | {f"new_{name}": row[name] for name in columns}
            for row in rows
        ],
    )


async def list_with_condition(
    connection: Connection, tenant_id: str, instance_ids: Sequence[str], condition: str
) -> set[str]:
    """Return those of the instances whose snapshots may have a condition; only such a snapshot contains its type."""
    statement = sa.select(instances.c.instance_id).where(
        instances.c.tenant_id == tenant_id,
        instances.c.instance_id.in_(instance_ids),
        sa.func.position(sa.literal(condition.encode()).op("in")(instances.c.snapshot)) > 0,
    )
    return set((await connection.execute(statement)).scalars())


async def update_snapshots(connection: Connection, tenant_id: str, snapshots: Mapping[str, bytes]) -> None:
    """Replace the snapshots of instances by id; nothing else changes."""
    if snapshots:
        parameters = {
            "tenant_id": tenant_id, "ids": list(snapshots), "snapshots": list(snapshots.values())
        }  # fmt: skip
        await connection.execute(_UPDATE_SNAPSHOTS, parameters)


async def rewrite_texts(
    connection: Connection, tenant_id: str, given: Sequence[tuple[str, int, bytes, Mapping[str, Any]]]
) -> None:
    """Replace (instance, newest revision, snapshot, config) after an upstream was renamed."""
    if given:
        ids, numbers, snapshots, configs = map(list, zip(*given, strict=True))
        parameters = {
            "tenant_id": tenant_id,
            "ids": ids,
            "revisions": numbers,
            "snapshots": snapshots,
            "configs": list(map(json.dumps, configs)),
        }
        await connection.execute(_REWRITE_TEXTS, parameters)


async def update_columns(
    connection: Connection,
    tenant_id: str,
    instance_id: str,
    **values: str | int | bytes | datetime | list[str],
) -> None:
    """Update columns of one instance."""
    await connection.execute(
        sa.update(instances)
        .where(instances.c.tenant_id == tenant_id, instances.c.instance_id == instance_id)
        .values(values)
    )


async def insert_revisions(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add immutable revisions."""
    await connection.execute(sa.insert(revisions), list(rows))


async def update_states(
    connection: Connection, tenant_id: str, given: Sequence[tuple[str, str, datetime, bytes]]
) -> None:
    """Write (instance, state, update time, snapshot); nothing else changes."""
    ids, states, times, snapshots = map(list, zip(*given, strict=True))
    parameters = {
        "tenant_id": tenant_id, "ids": ids, "states": states, "times": times, "snapshots": snapshots
    }  # fmt: skip
    await connection.execute(_UPDATE_STATES, parameters)


async def update_flows(connection: Connection, tenant_id: str, given: Sequence[tuple[str, str, str]]) -> None:
    """Record (instance, flow kind, deployment)."""
    ids, flow_kinds, deployment_ids = map(list, zip(*given, strict=True))
    parameters = {
        "tenant_id": tenant_id, "ids": ids, "flow_kinds": flow_kinds, "deployment_ids": deployment_ids
    }  # fmt: skip
    await connection.execute(_UPDATE_FLOWS, parameters)


async def update_models(
    connection: Connection, tenant_id: str, given: Sequence[tuple[str, str, str, str]]
) -> None:
    """Record models' ids in outside systems: (instance, MLflow experiment, registered model, Evidently project)."""
    columns = zip(*given, strict=True)
    names = ("ids", "experiment_ids", "registered_names", "project_ids")
    parameters = {name: list(values) for name, values in zip(names, columns, strict=True)}
    await connection.execute(_UPDATE_MODELS, {"tenant_id": tenant_id, **parameters})


async def drop_finalizer(
    connection: Connection, tenant_id: str, instance_ids: Sequence[str], finalizer: str
) -> list[tuple[bytes, list[str]]]:
    """Remove a finalizer from instances that are being deleted; return their remaining finalizers and snapshots."""
    parameters = {"tenant_id": tenant_id, "instance_ids": list(instance_ids), "finalizer": finalizer}
    rows = (await connection.execute(_REMOVE_FINALIZER, parameters)).all()
    return [(bytes(row.snapshot), row.finalizers) for row in rows]


async def delete_instances(connection: Connection, tenant_id: str, instance_ids: Sequence[str]) -> None:
    """Delete instances with all their rows."""
    await connection.execute(
        sa.delete(instances).where(
            instances.c.tenant_id == tenant_id, instances.c.instance_id.in_(instance_ids)
        )
    )


async def get_snapshot(connection: Connection, tenant_id: str, instance_id: str) -> bytes | None:
    """Return an instance, serialized."""
    return (await get_snapshots(connection, tenant_id, [instance_id])).get(instance_id)


async def get_snapshots(
    connection: Connection, tenant_id: str, instance_ids: Sequence[str]
) -> dict[str, bytes]:
    """Return those of the instances that exist, serialized."""
    parameters = {"tenant_id": tenant_id, "instance_ids": list(instance_ids)}
    return {row[0]: bytes(row[1]) for row in await connection.execute(_GET_SNAPSHOTS, parameters)}


async def fetch_snapshots(
    database: Database, tenant_id: str, instance_ids: Sequence[str]
) -> dict[str, bytes]:
    """Return the same as `get_snapshots` in one round trip, because every submission needs it."""
    parameters = {"tenant_id": tenant_id, "instance_ids": instance_ids}
    return dict(await database.fetch(tenant_id, _GET_SNAPSHOTS, parameters))


async def get_revision(
    connection: Connection, tenant_id: str, instance_id: str, revision: int
) -> bytes | None:
    """Return an instance as of a revision, serialized."""
    statement = sa.select(revisions.c.snapshot).where(
        revisions.c.tenant_id == tenant_id,
        revisions.c.instance_id == instance_id,
        revisions.c.revision == revision,
    )
    return (await connection.execute(statement)).scalar_one_or_none()


async def lock_instance(connection: Connection, tenant_id: str, instance_id: str) -> bytes | None:
    """Lock an instance until the transaction ends and return it, serialized."""
    statement = (
        sa.select(instances.c.snapshot)
        .where(instances.c.tenant_id == tenant_id, instances.c.instance_id == instance_id)
        .with_for_update()
    )
    return (await connection.execute(statement)).scalar_one_or_none()


async def lock_instances(connection: Connection, tenant_id: str, instance_ids: Sequence[str]) -> list[bytes]:
    """Lock those of the instances that exist until the transaction ends and return them, serialized."""
    statement = (
        sa.select(instances.c.snapshot)
        .where(instances.c.tenant_id == tenant_id, instances.c.instance_id.in_(instance_ids))
        .order_by(instances.c.instance_id)
        .with_for_update()
    )
    return [bytes(snapshot) for snapshot in (await connection.execute(statement)).scalars()]


async def is_name_taken(
    connection: Connection, tenant_id: str, project_id: str, name: str, except_id: str
) -> bool:
    """Return whether another live instance of the project has the name."""
    statement = sa.select(sa.literal(1)).where(
        instances.c.tenant_id == tenant_id,
        instances.c.project_id == project_id,
        instances.c.name == name,
        instances.c.owner_instance_id.is_(None),
        instances.c.state != "deleting",
        instances.c.instance_id != except_id,
    )
    return (await connection.execute(statement.limit(1))).first() is not None


async def list_revisions(
    connection: Connection, tenant_id: str, instance_id: str, before: int | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return revisions, newest first, before a number."""
    statement = sa.select(revisions).where(
        revisions.c.tenant_id == tenant_id, revisions.c.instance_id == instance_id
    )
    if before is not None:
        statement = statement.where(revisions.c.revision < before)
    page = statement.order_by(revisions.c.revision.desc()).limit(limit)
    return (await connection.execute(within_bytes(page, "revision", is_descending=True))).all()


async def resolve_versions(
    connection: Connection, tenant_id: str, wanted: Sequence[tuple[str, str, str, str, str, str]]
) -> dict[int, bytes]:
    """Return the version, serialized, for the position of each (kind, definition id, name, version id, version, held id).

    An empty part matches everything. Without a version it is the newest active one, or the held one if that is newer.
    """
    kinds, definition_ids, names, version_ids, versions, held_ids = zip(*wanted, strict=True)
    parameters = {
        "tenant_id": tenant_id,
        "kinds": list(kinds),
        "definition_ids": [value or None for value in definition_ids],
        "names": list(names),
        "version_ids": [value or None for value in version_ids],
        "versions": list(versions),
        "held_ids": [value or None for value in held_ids],
    }
    rows = await connection.execute(_RESOLVE, parameters)
    return {int(row.position) - 1: bytes(row.snapshot) for row in rows}
