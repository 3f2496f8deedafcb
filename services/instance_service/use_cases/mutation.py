"""Make a change once for each request id, or only try it if the request has `validate_only`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from instance_service.domain.errors import too_many_instances, too_much_stored
from instance_service.store.usage import NO_LIMITS, get_usage
from instance_service.use_cases.dependencies import Dependencies
from servicekit import idempotency
from servicekit.access import SERVICE
from servicekit.context import current_or_none
from servicekit.database import Connection, lock_tenant

_Answer = TypeVar("_Answer", bound=Message)


class _ValidatedOnlyError(Exception):
    """End the transaction of a `validate_only` request: every rule was satisfied, and everything is rolled back."""


async def mutate(
    deps: Dependencies,
    tenant_id: str,
    request: Message,
    answers: type[_Answer],
    change: Callable[[Connection], Awaitable[_Answer]],
) -> _Answer:
    """Run a change in one transaction, or return the stored answer if the same request was answered before.

    In a rehearsal the change is part of the rehearsal's transaction; if refused, only this change is undone.

    The transaction holds the tenant's lock, so whatever the change has checked is still true when it is committed.

    Args:
        deps: The dependencies of the service.
        tenant_id: The tenant whose data changes.
        request: The request of a method that changes something; it has `request_id` and may have `validate_only`.
        answers: The type of the answer.
        change: The change to make; it may raise.

    Raises:
        AlreadyExistsError: The request id was used before with another request.
        ResourceExhaustedError: TOO_MANY_INSTANCES, TOO_MUCH_STORED.
    """
    if deps.rehearsal is not None:
        async with deps.rehearsal.begin_nested():
            return await _within_limits(deps, deps.rehearsal, tenant_id, change)
    asked = cast("Any", request)
    method = request.DESCRIPTOR.name.removesuffix("Request")
    digest = idempotency.payload_hash(request)
    try:
        async with deps.database.transaction(tenant_id) as connection:
            reply = await idempotency.replay_or_none(connection, method, asked.request_id, digest)
            if reply is not None:
                return answers.FromString(reply)
            await lock_tenant(connection, tenant_id)
            answer = await _within_limits(deps, connection, tenant_id, change)
            if getattr(asked, "validate_only", False):
                raise _ValidatedOnlyError  # noqa: TRY301 - rolls back
            await idempotency.store(connection, method, asked.request_id, answer.SerializeToString())
    except _ValidatedOnlyError:
        pass
    return answer


async def _within_limits(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    change: Callable[[Connection], Awaitable[_Answer]],
) -> _Answer:
    """Make a change, and refuse it if it leaves the tenant with more than it may have and than it had before.

    What the service stores by itself, such as the built-in definitions, is counted and never refused.
    """
    limits, request = deps.limits, current_or_none()
    if limits == NO_LIMITS or request is None or SERVICE in request.roles:
        return await change(connection)
    before = await get_usage(connection, tenant_id)
    answer = await change(connection)
    after = await get_usage(connection, tenant_id)
    if limits.instances and after.instances > max(limits.instances, before.instances):
        raise too_many_instances(limits.instances)
    if limits.bytes and after.bytes > max(limits.bytes, before.bytes):
        raise too_much_stored(limits.bytes)
    return answer
