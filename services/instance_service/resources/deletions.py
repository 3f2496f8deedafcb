"""Mark the resources of a plan as being deleted, and remove each once its finalizers are gone.

An instance is removed only after all its dependants. Until then it has the finalizer `dependants`.
"""

from __future__ import annotations

from collections.abc import Sequence

from instance_service.resources.conversion import timestamp
from instance_service.resources.data_removals import remember_data
from instance_service.resources.deletion_plans import Plan
from instance_service.resources.dependencies import ResourceDependencies
from instance_service.resources.instances.conditions import clear_condition, set_condition
from instance_service.resources.instances.revisions import stamp
from instance_service.resources.instances.rows import instance_row, revision_row
from instance_service.store import graph, projects, queue
from instance_service.store import instances as store
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance
from servicekit import outbox
from servicekit.context import RequestContext
from servicekit.database import Connection, lock_tenant

_CONDITION = "Deleting"
_DEPENDANTS = "dependants"  # removed together with the last dependant


async def condemn(
    deps: ResourceDependencies, connection: Connection, context: RequestContext, plan: Plan, reason: str
) -> None:
    """Write a revision in state DELETING for everything in a plan; requires the tenant's lock, as the plan does."""
    if not plan.deleted:
        return
    tenant_id = context.tenant_id
    # Lock all rows in one statement: verdicts are written for many instances too, and without the tenant's lock.
    found = await store.lock_instances(connection, tenant_id, [each.instance_id for each in plan.deleted])
    known = {one.instance_id: one for one in map(Instance.FromString, found)}
    deleted = [known[each.instance_id] for each in plan.deleted]
    rows = []
    for one in deleted:
        previous = Instance()
        previous.CopyFrom(one)
        one.state = INSTANCE_STATE_DELETING
        stamp(deps, one, previous)
        row = instance_row(tenant_id, one)
        if one.instance_id in plan.read:
            row["finalizers"] = [_DEPENDANTS, *row["finalizers"]]
        _set_waiting_condition(deps, one, row["finalizers"])
        rows.append({**row, "snapshot": one.SerializeToString()})
    await store.update_rows(connection, rows)
    revisions = [revision_row(tenant_id, one, context.actor, reason) for one in deleted]
    await store.insert_revisions(connection, revisions)
    await queue.enqueue(connection, tenant_id, [one.instance_id for one in deleted])
    events = deps.events(tenant_id)
    await outbox.append(connection, [events.deletion_requested(one) for one in deleted])


def _set_waiting_condition(deps: ResourceDependencies, instance: Instance, finalizers: Sequence[str]) -> None:
    """Set the condition that names the finalizers a deletion waits for; its start time stays."""
    message = f"waits for: {', '.join(finalizers)}"
    set_condition(instance, _CONDITION, "FinalizersAtWork", message, timestamp(deps.clock.now()))


async def remove_finalizer(
    deps: ResourceDependencies,
    connection: Connection,
    tenant_id: str,
    instance_ids: Sequence[str],
    finalizer: str,
    condition: str = "",
) -> None:
    """Remove a finalizer and its condition; an instance with none left is removed, which may free its upstreams."""
    # Prevents two dependants that are removed at the same time from each seeing the other still there.
    await lock_tenant(connection, tenant_id)
    while instance_ids:
        # Lock in the order in which verdicts are written.
        await store.lock_instances(connection, tenant_id, instance_ids)
        states = await store.drop_finalizer(connection, tenant_id, instance_ids, finalizer)
        gone = [Instance.FromString(snapshot) for snapshot, finalizers in states if not finalizers]
        waiting = [(Instance.FromString(snapshot), left) for snapshot, left in states if left]
        for instance, left in waiting:
            clear_condition(instance, condition)
            _set_waiting_condition(deps, instance, left)
        await store.update_snapshots(
            connection, tenant_id, {one.instance_id: one.SerializeToString() for one, _ in waiting}
        )
        ids = [instance.instance_id for instance in gone]
        instance_ids, finalizer = await _remove_instances(deps, connection, tenant_id, gone, ids), _DEPENDANTS


async def _remove_instances(
    deps: ResourceDependencies,
    connection: Connection,
    tenant_id: str,
    gone: Sequence[Instance],
    ids: list[str],
) -> list[str]:
    """Remove instances; return their upstreams that are being deleted and have no dependants left."""
    if not gone:
        return []
    freed = await graph.list_freed(connection, tenant_id, ids)
    await remember_data(deps, connection, tenant_id, gone)
    await store.delete_instances(connection, tenant_id, ids)
    await projects.delete_emptied(connection, tenant_id, {instance.project_id for instance in gone})
    await queue.delete(connection, tenant_id, ids)
    events = deps.events(tenant_id)
    await outbox.append(connection, [events.deleted(instance) for instance in gone])
    return freed
