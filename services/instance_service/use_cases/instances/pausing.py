"""Pause and resume instances."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Any

from instance_service.domain import errors
from instance_service.resources.instances.locking import check_etag, check_not_deleting, lock
from instance_service.resources.instances.revisions import stamp
from instance_service.resources.instances.rows import revision_row
from instance_service.store import instances as store
from instance_service.store import queue
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.mutation import mutate
from optaic.instance.v1.instance_pb2 import (
    INSTANCE_STATE_PAUSED,
    INSTANCE_STATE_PROVISIONING,
    Instance,
    InstanceState,
)
from optaic.instance.v1.instance_service_pb2 import (
    PauseInstanceRequest,
    ResumeInstanceRequest,
)
from servicekit import audit, off_loop, outbox
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.enums import enum_word

_Request = PauseInstanceRequest | ResumeInstanceRequest


async def pause_instance(
    deps: Dependencies, context: RequestContext, request: PauseInstanceRequest
) -> Instance:
    """Pause an instance (ACTIVE | PROVISIONING | DEGRADED -> PAUSED); a paused one stays unchanged.

    Raises:
        NotFoundError: It does not exist.
        AbortedError: The etag is stale.
        FailedPreconditionError: The instance is being deleted.
    """

    async def pause(connection: Connection, instance: Instance) -> None:
        check_not_deleting(instance)
        if instance.state != INSTANCE_STATE_PAUSED:
            await _move(deps, connection, context, request, instance, INSTANCE_STATE_PAUSED)

    return await _once(deps, context, request, pause)


async def resume_instance(
    deps: Dependencies, context: RequestContext, request: ResumeInstanceRequest
) -> Instance:
    """Resume an instance (PAUSED -> PROVISIONING); the reconciler then makes it ACTIVE. A running one stays unchanged.

    Raises:
        NotFoundError: It does not exist.
        AbortedError: The etag is stale.
        FailedPreconditionError: The instance is being deleted.
    """

    async def resume(connection: Connection, instance: Instance) -> None:
        check_not_deleting(instance)
        if instance.state == INSTANCE_STATE_PAUSED:
            await _move(deps, connection, context, request, instance, INSTANCE_STATE_PROVISIONING)

    return await _once(deps, context, request, resume)


async def _once(
    deps: Dependencies,
    context: RequestContext,
    request: _Request,
    change: Callable[[Connection, Instance], Any],
) -> Instance:
    """Run `change` on the locked instance, in place, unless the same request was answered before."""

    async def apply(connection: Connection) -> Instance:
        instance = await lock(connection, context.tenant_id, request.instance_id)
        check_etag(instance, request.etag)
        if instance.owner_instance_id:
            text = "a component has no flow; pause or resume the instance that owns it"
            raise errors.unsupported_kind(text)
        await change(connection, instance)
        return instance

    return await mutate(deps, context.tenant_id, request, Instance, apply)


async def _move(
    deps: Dependencies,
    connection: Connection,
    context: RequestContext,
    request: _Request,
    instance: Instance,
    state: Any,
) -> None:
    """Write a revision in another state with its event, and queue the instance for reconciliation."""
    previous = Instance()
    previous.CopyFrom(instance)
    instance.state = state
    stamp(deps, instance, previous)
    tenant_id = context.tenant_id
    await _write(connection, tenant_id, instance)
    revision = revision_row(tenant_id, instance, context.actor, request.reason)
    await store.insert_revisions(connection, [revision])
    await queue.enqueue(connection, tenant_id, [instance.instance_id])
    event = await off_loop.run_if_large(
        instance.ByteSize(), deps.events(tenant_id).updated, instance, context.actor, request.reason
    )
    await outbox.append(connection, [event])
    audit.note(
        f"instances/{instance.instance_id}",
        before=previous.revision,
        after=instance.revision,
        reason=request.reason,
    )


async def _write(connection: Connection, tenant_id: str, instance: Instance) -> None:
    await store.update_columns(
        connection,
        tenant_id,
        instance.instance_id,
        state=enum_word(InstanceState, instance.state),
        revision=instance.revision,
        snapshot=instance.SerializeToString(),
        update_time=instance.update_time.ToDatetime(tzinfo=UTC),
    )
