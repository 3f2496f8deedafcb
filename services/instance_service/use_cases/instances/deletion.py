"""Delete instances, alone or with their dependants; the rows are removed when the last finalizer is."""

from __future__ import annotations

from collections.abc import Sequence

from instance_service.resources.deletion_plans import check_within, plan_instance
from instance_service.resources.deletions import condemn, remove_finalizer
from instance_service.store import instances as store
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.mutation import mutate
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import DeleteInstanceRequest
from servicekit import audit
from servicekit.context import RequestContext
from servicekit.database import Connection

_LINEAGE = "lineage"  # the finalizer that lineage-service removes


async def delete_instance(
    deps: Dependencies, context: RequestContext, request: DeleteInstanceRequest
) -> Instance:
    """Start the deletion of an instance, or return the one in progress.

    Raises:
        NotFoundError: It does not exist.
        AbortedError: The etag is stale, or the deletion would remove other instances than the preview showed.
        FailedPreconditionError: Other instances depend on it and `cascade` is not set, or the caller may not delete
            all of them; each is named.
    """

    async def delete(connection: Connection) -> Instance:
        tenant_id = context.tenant_id
        plan = await plan_instance(connection, tenant_id, request)
        if context.scopes is not None:
            check_within(plan, plan.deleted[-1].name if plan.deleted else "it", context.scopes.permitted)
        await condemn(deps, connection, context, plan, request.reason)
        snapshot = await store.get_snapshot(connection, tenant_id, request.instance_id.lower())
        assert snapshot is not None
        instance = Instance.FromString(snapshot)
        if not plan.is_under_way:
            name = f"instances/{instance.instance_id}"
            audit.note(name, before=instance.revision - 1, after=instance.revision, reason=request.reason)
        return instance

    return await mutate(deps, context.tenant_id, request, Instance, delete)


async def finish(
    deps: Dependencies, tenant_id: str, instance_ids: Sequence[str], finalizer: str, condition: str
) -> None:
    """Remove an outside system's finalizer and condition from instances that it no longer holds anything for."""
    async with deps.database.transaction(tenant_id) as connection:
        await remove_finalizer(deps, connection, tenant_id, instance_ids, finalizer, condition)


async def finish_in_lineage(
    deps: Dependencies, connection: Connection, tenant_id: str, instance_ids: Sequence[str]
) -> None:
    """Remove lineage-service's finalizer from deleted instances, in the transaction of its event."""
    await remove_finalizer(deps, connection, tenant_id, instance_ids, _LINEAGE)
