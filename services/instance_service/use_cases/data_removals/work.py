"""Hand out data removals to workers, and delete them once the data is removed."""

from __future__ import annotations

import structlog

from instance_service.domain import errors
from instance_service.domain.data_removal import deleted_until, retry_delay
from instance_service.resources.data_removals import removal_of
from instance_service.store import data_removals as store
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.data_removal_service_pb2 import (
    ClaimDataRemovalResponse,
    FinishDataRemovalRequest,
    FinishDataRemovalResponse,
)
from optaic.rules.data_removals import CLAIM
from redaction import redact
from servicekit import audit

_log = structlog.get_logger(__name__)


async def claim_data_removal(deps: Dependencies, tenant_id: str) -> ClaimDataRemovalResponse:
    """Give the caller one data removal that is due; it becomes due again when the lease ends."""
    now = deps.clock.now()
    async with deps.database.transaction(tenant_id) as connection:
        row = await store.claim_removal(
            connection,
            tenant_id,
            now=now,
            deleted_until=deleted_until(now, deps.data_grace_seconds),
            lease_time=now + CLAIM,
        )
    return ClaimDataRemovalResponse(
        data_removal=removal_of(row, deps.data_grace_seconds) if row is not None else None
    )


async def finish_data_removal(
    deps: Dependencies, tenant_id: str, request: FinishDataRemovalRequest
) -> FinishDataRemovalResponse:
    """Delete a data removal that succeeded; schedule a failed one for a later attempt, with its problem.

    Raises:
        NotFoundError: The caller reports the failure of a removal that is already done.
    """
    instance_id, problem = request.instance_id.lower(), redact(request.problem)
    async with deps.database.transaction(tenant_id) as connection:
        if not problem:
            await store.delete_removal(connection, tenant_id, instance_id)
            audit.note(f"data_removals/{instance_id}")
            _log.info("data removed", instance_id=instance_id)
            return FinishDataRemovalResponse()
        attempts = await store.lock_attempts(connection, tenant_id, instance_id)
        if attempts is None:
            raise errors.data_removal_not_found(instance_id)
        due_time = deps.clock.now() + retry_delay(attempts)
        await store.postpone_removal(connection, tenant_id, instance_id, problem, due_time)
        audit.note(f"data_removals/{instance_id}", reason=problem)
    _log.warning("data not removed", instance_id=instance_id, attempts=attempts, problem=problem)
    return FinishDataRemovalResponse()
