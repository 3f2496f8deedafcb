"""Writing changed instances as new revisions, any number at once, and moving those that follow a definition."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from instance_service.domain.paths import shortest_cycle
from instance_service.store import graph, queue
from instance_service.store import instances as store
from instance_service.store.tables import Connection
from instance_service.use_cases.drafts import Draft, complete, gather, is_same, prepare, stamp
from instance_service.use_cases.environment import Environment
from instance_service.use_cases.references import describe_changes
from instance_service.use_cases.rows import Rows, rows_of
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance
from servicekit import outbox
from servicekit.database import lock_tenant
from servicekit.errors import (
    AlreadyExistsError,
    DomainError,
    FailedPreconditionError,
    FieldViolation,
    PreconditionViolation,
)

_AUTHOR = "instance-service"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Change:
    """What an instance is, what it is to be, and why."""

    current: Instance
    draft: Draft
    reason: str


async def write_changes(
    connection: Connection, environment: Environment, tenant_id: str, author: str, changes: Sequence[Change]
) -> None:
    """Write new revisions, with those components that differ; under the tenant's lock.

    The drafts are stamped in place. Every change must differ from what is there.

    Raises:
        AlreadyExistsError: A name is taken.
        FailedPreconditionError: A cycle would close.
    """
    if not changes:
        return
    components = [item for change in changes for item in change.draft.components]
    known = await store.get_snapshots(connection, tenant_id, [item.instance_id for item in components])
    rows: Rows = defaultdict(list)
    for change in changes:
        draft = change.draft
        if draft.instance.name != change.current.name:
            await check_name(connection, tenant_id, draft.instance)
        changed = [draft.instance]
        for component in draft.components:
            previous = Instance.FromString(known[component.instance_id])
            if is_same(component, previous):
                component.CopyFrom(previous)
            else:
                stamp(environment, component, previous)
                changed.append(component)
        stamp(environment, draft.instance, change.current)
        for table, added in rows_of(tenant_id, draft, changed, author, change.reason).items():
            rows[table].extend(added)
    instances = [change.draft.instance for change in changes]
    ids = [item.instance_id for item in (*instances, *components)]
    await store.replace_instances(connection, tenant_id, ids, rows)
    for change in changes:
        if _edges(change.draft.instance) != _edges(change.current):
            await _check_cycle(connection, tenant_id, change.draft.instance)
    await queue.enqueue(connection, tenant_id, [instance.instance_id for instance in instances])
    events = environment.events(tenant_id)
    await outbox.append(
        connection, [events.updated(change.draft.instance, author, change.reason) for change in changes]
    )


async def follow_newest(environment: Environment, tenant_id: str, instance_ids: Sequence[str]) -> None:
    """Move those instances that follow newest versions and lag behind; who does not fit stays where it is."""
    async with environment.database.read(tenant_id) as connection:
        lagging = await store.list_lagging(connection, tenant_id, instance_ids)
    if not lagging:
        return
    async with environment.database.transaction(tenant_id) as connection:
        await lock_tenant(connection, tenant_id)
        snapshots = await store.lock_instances(connection, tenant_id, lagging)
        current = [Instance.FromString(snapshot) for snapshot in snapshots]
        live = [instance for instance in current if instance.state != INSTANCE_STATE_DELETING]
        pending = [prepare(environment, instance, instance) for instance in live]
        facts = await gather(connection, tenant_id, pending)
        changes: list[Change] = []
        for instance, one in zip(live, pending, strict=True):
            try:
                draft = complete(tenant_id, one, facts)
            except DomainError as error:
                problem = repr(error)
                _log.warning("newest version does not fit", instance_id=instance.instance_id, error=problem)
                continue
            if not is_same(draft.instance, instance):
                reason = f"follows newest versions: {describe_changes(instance, draft.instance)}"
                changes.append(Change(instance, draft, reason))
        await write_changes(connection, environment, tenant_id, _AUTHOR, changes)


async def check_name(connection: Connection, tenant_id: str, instance: Instance) -> None:
    """Refuse a name that another live instance of the project has.

    Raises:
        AlreadyExistsError: There is one.
    """
    if await store.is_name_taken(
        connection, tenant_id, instance.project_id, instance.name, instance.instance_id
    ):
        violation = FieldViolation("instance.name", "is taken in this project", "NAME_TAKEN")
        raise AlreadyExistsError(
            "NAME_TAKEN",
            f"the project has an instance {instance.name}",
            metadata={"name": instance.name},
            field_violations=[violation],
        )


def _edges(instance: Instance) -> set[str]:
    return {edge.upstream.instance_id for flow in instance.flows for edge in flow.upstreams}


async def _check_cycle(connection: Connection, tenant_id: str, instance: Instance) -> None:
    """Refuse edges that make the instance its own ancestor; the edges are already written, and rolled back."""
    if not await graph.has_cycle(connection, tenant_id, instance.instance_id):
        return
    edges = await graph.list_ancestor_edges(connection, tenant_id, instance.instance_id)
    cycle = shortest_cycle([(edge[0], edge[1]) for edge in edges], instance.instance_id)
    names = {edge[1]: edge[2] for edge in edges}
    path = " -> ".join(names.get(instance_id, instance_id) for instance_id in cycle)
    raise FailedPreconditionError(
        "CYCLE",
        f"the upstreams close a cycle: {path}",
        metadata={"path": " -> ".join(cycle)[:4096]},
        preconditions=[
            PreconditionViolation("CYCLE", f"{names.get(one, one)}", f"reads {names.get(other, other)}")
            for one, other in itertools.pairwise(cycle)
        ],
    )
