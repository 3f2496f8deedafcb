"""Pausing, resuming and deleting instances, and what reconcilers and finalizers report about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

from instance_service.store import graph, queue
from instance_service.store import instances as store
from instance_service.store.tables import Connection
from instance_service.use_cases.drafts import stamp
from instance_service.use_cases.environment import Environment
from instance_service.use_cases.instances import check_etag, check_not_deleting, lock
from instance_service.use_cases.rows import revision_row
from instance_service.use_cases.shapes import state_word
from optaic.instance.v1.instance_pb2 import (
    INSTANCE_STATE_DELETING,
    INSTANCE_STATE_PAUSED,
    INSTANCE_STATE_PROVISIONING,
    Instance,
)
from optaic.instance.v1.instance_service_pb2 import (
    DeleteInstanceRequest,
    PauseInstanceRequest,
    ResumeInstanceRequest,
)
from servicekit import idempotency, outbox
from servicekit.context import RequestContext
from servicekit.database import lock_tenant
from servicekit.errors import FailedPreconditionError, InvalidArgumentError, PreconditionViolation
from servicekit.events import Event

Request = DeleteInstanceRequest | PauseInstanceRequest | ResumeInstanceRequest


async def pause_instance(
    environment: Environment, request: PauseInstanceRequest, context: RequestContext
) -> Instance:
    """ACTIVE | PROVISIONING | DEGRADED -> PAUSED; pausing again changes nothing.

    Raises:
        NotFoundError: There is none.
        AbortedError: The etag is not the present one.
        FailedPreconditionError: It is being deleted.
    """

    async def pause(connection: Connection, instance: Instance) -> None:
        check_not_deleting(instance)
        if instance.state != INSTANCE_STATE_PAUSED:
            await _move(connection, environment, request, context, instance, INSTANCE_STATE_PAUSED)

    return await _once(environment, "PauseInstance", request, context, pause)


async def resume_instance(
    environment: Environment, request: ResumeInstanceRequest, context: RequestContext
) -> Instance:
    """PAUSED -> PROVISIONING, then ACTIVE by the reconciler; resuming what runs changes nothing.

    Raises:
        NotFoundError: There is none.
        AbortedError: The etag is not the present one.
        FailedPreconditionError: It is being deleted.
    """

    async def resume(connection: Connection, instance: Instance) -> None:
        check_not_deleting(instance)
        if instance.state == INSTANCE_STATE_PAUSED:
            await _move(connection, environment, request, context, instance, INSTANCE_STATE_PROVISIONING)

    return await _once(environment, "ResumeInstance", request, context, resume)


async def delete_instance(
    environment: Environment, request: DeleteInstanceRequest, context: RequestContext
) -> Instance:
    """Start the deletion, or return the one under way.

    Raises:
        NotFoundError: There is none.
        AbortedError: The etag is not the present one.
        FailedPreconditionError: Others depend on it; each is named.
    """

    async def delete(connection: Connection, instance: Instance) -> None:
        if instance.state == INSTANCE_STATE_DELETING:
            return
        await _check_dependants(connection, context.tenant_id, instance)
        await _move(connection, environment, request, context, instance, INSTANCE_STATE_DELETING)

    return await _once(environment, "DeleteInstance", request, context, delete)


async def _check_dependants(connection: Connection, tenant_id: str, instance: Instance) -> None:
    if instance.owner_instance_id:
        owner = Instance.FromString(
            await store.get_snapshot(connection, tenant_id, instance.owner_instance_id) or b""
        )
        dependants = [(owner.name, f"is composed of it ({instance.owner_instance_id})")]
    else:
        rows = await graph.list_dependants(connection, tenant_id, instance.instance_id)
        dependants = [(row.name, f"{row.kind} {row.instance_id} reads it") for row in rows]
    if dependants:
        names = ", ".join(name for name, _ in dependants)
        raise FailedPreconditionError(
            "HAS_DEPENDANTS",
            f"{instance.name} has dependants: {names}",
            metadata={"count": str(len(dependants))},
            preconditions=[PreconditionViolation("HAS_DEPENDANTS", *dependant) for dependant in dependants],
        )


async def _once(
    environment: Environment,
    method: str,
    request: Request,
    context: RequestContext,
    change: Callable[[Connection, Instance], Any],
) -> Instance:
    """Run `change` on the locked instance, in place, unless the request was answered before."""
    tenant_id, digest = context.tenant_id, idempotency.payload_hash(request)
    async with environment.database.transaction(tenant_id) as connection:
        reply = await idempotency.replay_or_none(connection, method, request.request_id, digest)
        if reply is not None:
            return Instance.FromString(reply)
        # Nobody may start to depend on what is being deleted.
        await lock_tenant(connection, tenant_id)
        instance = await lock(connection, tenant_id, request.instance_id)
        check_etag(instance, request.etag)
        if instance.owner_instance_id and method != "DeleteInstance":
            text = "a component has no flow: pause or resume the instance that owns it"
            raise InvalidArgumentError("UNSUPPORTED_KIND", text)
        await change(connection, instance)
        await idempotency.store(connection, method, request.request_id, instance.SerializeToString())
    return instance


async def _move(
    connection: Connection,
    environment: Environment,
    request: Request,
    context: RequestContext,
    instance: Instance,
    state: Any,
) -> None:
    """Make a revision in another state, with its event, and have it reconciled."""
    previous = Instance()
    previous.CopyFrom(instance)
    instance.state = state
    stamp(environment, instance, previous)
    tenant_id = context.tenant_id
    await _write(connection, tenant_id, instance)
    await store.insert_revision(connection, revision_row(tenant_id, instance, context.actor, request.reason))
    await queue.enqueue(connection, tenant_id, [instance.instance_id])
    events = environment.events(tenant_id)
    event: Event = (
        events.deletion_requested(instance)
        if state == INSTANCE_STATE_DELETING
        else events.updated(instance, context.actor, request.reason)
    )
    await outbox.append(connection, [event])


async def _write(connection: Connection, tenant_id: str, instance: Instance) -> None:
    await store.update_instance(
        connection,
        tenant_id,
        instance.instance_id,
        state=state_word(instance.state),
        revision=instance.revision,
        snapshot=instance.SerializeToString(),
        update_time=instance.update_time.ToDatetime(tzinfo=UTC),
    )


async def load_instances(
    environment: Environment, tenant_id: str, instance_ids: Sequence[str]
) -> dict[str, Instance]:
    """Return those of the instances that exist."""
    async with environment.database.read(tenant_id) as connection:
        found = await store.get_snapshots(connection, tenant_id, instance_ids)
    return {instance_id: Instance.FromString(snapshot) for instance_id, snapshot in found.items()}


async def finish(
    environment: Environment, tenant_id: str, instance_ids: Sequence[str], finalizer: str
) -> None:
    """One outside system holds nothing any more for instances that are being deleted."""
    async with environment.database.transaction(tenant_id) as connection:
        await remove_finalizer(connection, environment, tenant_id, instance_ids, finalizer)


async def remove_finalizer(
    connection: Connection,
    environment: Environment,
    tenant_id: str,
    instance_ids: Sequence[str],
    finalizer: str,
) -> None:
    """Take a finalizer off; who takes the last one removes the instance."""
    snapshots = await store.remove_finalizer(connection, tenant_id, instance_ids, finalizer)
    gone = [Instance.FromString(snapshot) for snapshot in snapshots]
    if gone:
        ids = [instance.instance_id for instance in gone]
        await store.delete_instances(connection, tenant_id, ids)
        await queue.delete(connection, tenant_id, ids)
        events = environment.events(tenant_id)
        await outbox.append(connection, [events.deleted(instance) for instance in gone])
