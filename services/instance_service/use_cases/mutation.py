"""A change that is made once for each request id, and only tried where the caller asks for that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from instance_service.store.tables import Connection
from instance_service.use_cases.dependencies import Dependencies
from servicekit import idempotency
from servicekit.database import lock_tenant

_Answer = TypeVar("_Answer", bound=Message)


class _TriedError(Exception):
    """Ends the transaction of `validate_only`: everything held, and everything is rolled back."""


async def mutate(
    deps: Dependencies,
    tenant_id: str,
    request: Message,
    answers: type[_Answer],
    change: Callable[[Connection], Awaitable[_Answer]],
) -> _Answer:
    """Return what `change` answers, or has answered to the same request before.

    In a rehearsal it is a part of that, and undone alone where it is refused.

    It runs in one transaction under the tenant's lock: what it has checked still holds when it is committed.

    Args:
        deps: of the service.
        tenant_id: whose.
        request: of a method that changes something: it has `request_id`, and may have `validate_only`.
        answers: the type of the answer.
        change: the change; it may raise.

    Raises:
        AlreadyExistsError: The request id came with another request before.
    """
    if deps.rehearsal is not None:
        async with deps.rehearsal.begin_nested():
            return await change(deps.rehearsal)
    asked = cast("Any", request)
    method = request.DESCRIPTOR.name.removesuffix("Request")
    digest = idempotency.payload_hash(request)
    try:
        async with deps.database.transaction(tenant_id) as connection:
            reply = await idempotency.replay_or_none(connection, method, asked.request_id, digest)
            if reply is not None:
                return answers.FromString(reply)
            await lock_tenant(connection, tenant_id)
            answer = await change(connection)
            if getattr(asked, "validate_only", False):
                raise _TriedError  # noqa: TRY301 - rolls back
            await idempotency.store(connection, method, asked.request_id, answer.SerializeToString())
    except _TriedError:
        pass
    return answer
