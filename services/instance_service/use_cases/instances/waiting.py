"""Wait for the reconciler on behalf of calls; each look at the instance is a transaction of its own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time

from instance_service.store import instances as store
from instance_service.store import queue
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_PROVISIONING, Instance
from servicekit.context import RequestContext
from servicekit.errors import DomainError

_MARGIN, _LONGEST_MARGIN = 0.1, 1.0  # seconds of the caller's deadline that are kept for answering


async def when_active(deps: Dependencies, context: RequestContext, instance: Instance) -> Instance:
    """Wait until an instance is no longer provisioning, and return it; when time is up, return it as it is.

    The instance exists already, so the caller gets an answer even if a look fails.
    """
    if deps.places.locked():
        return instance
    seconds = deps.activation_wait_seconds
    if context.has_own_deadline:
        seconds = _time_to_wait(context)
    activated = deps.activated
    with contextlib.suppress(TimeoutError):
        async with deps.places, asyncio.timeout(seconds):
            with activated.listening(instance.instance_id) as wait:
                while instance.state == INSTANCE_STATE_PROVISIONING and not activated.is_closed:
                    await wait(seconds)
                    with contextlib.suppress(DomainError):  # raised by the database
                        found = await same_revision(deps, context.tenant_id, instance)
                        if found is None:
                            break
                        instance = found
    return instance


def _time_to_wait(context: RequestContext) -> float:
    """Return the seconds that a call may wait, less a margin in which its answer can arrive."""
    remaining = context.remaining()
    return math.inf if remaining is None else remaining - min(max(remaining / 10, _MARGIN), _LONGEST_MARGIN)


async def same_revision(deps: Dependencies, tenant_id: str, instance: Instance) -> Instance | None:
    """Return the newest state of the revision that a call made; None if it is superseded or deleted."""
    instance_id = instance.instance_id
    snapshot = (await store.fetch_snapshots(deps.database, tenant_id, [instance_id])).get(instance_id)
    found = None if snapshot is None else Instance.FromString(snapshot)
    return found if found is not None and found.revision == instance.revision else None


async def when_settled(deps: Dependencies, context: RequestContext, instance: Instance) -> Instance:
    """Wait until the outside systems agree with an instance, and return it; when time is up, return it as it is."""
    end = time.monotonic() + min(deps.activation_wait_seconds, _time_to_wait(context))
    with deps.activated.listening(instance.instance_id) as wait:
        while (seconds := end - time.monotonic()) > 0:
            async with deps.database.read(context.tenant_id) as connection:
                is_settled = await queue.is_settled(connection, context.tenant_id, instance.instance_id)
            if is_settled:
                break
            await wait(seconds)
    return await same_revision(deps, context.tenant_id, instance) or instance
