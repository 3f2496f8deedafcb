"""The data of instances that are gone: listed, given to workers, and forgotten once it is removed."""

from __future__ import annotations

from datetime import datetime

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
    ListDataRemovalsRequest,
    ListDataRemovalsResponse,
)
from optaic.rules.data_removals import CLAIM
from optaic.rules.pages import DEFAULT_SIZE
from redaction import redact
from servicekit import pages

_SELECTION = pages.filter_hash("data removals")
_log = structlog.get_logger(__name__)


async def list_data_removals(
    deps: Dependencies, tenant_id: str, request: ListDataRemovalsRequest
) -> ListDataRemovalsResponse:
    """Return a page of what is still there, in the order in which the instances went."""
    after = None
    if request.page_token:
        position = pages.decode(request.page_token, _SELECTION)
        after = datetime.fromisoformat(position["time"]), position["id"]
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        rows = await store.list_removals(connection, tenant_id, after, size + 1)
    page = pages.fit(rows, size, lambda row: len(row.snapshot) + len(row.problem))
    answer = ListDataRemovalsResponse(
        data_removals=[removal_of(row, deps.data_grace_seconds) for row in page]
    )
    for each in answer.data_removals:
        each.ClearField("stores")  # what configurations say is for those who need it
    if len(rows) > len(page):
        last = page[-1]
        position = {"time": last.delete_time.isoformat(), "id": last.instance_id}
        answer.next_page_token = pages.encode(position, _SELECTION)
    return answer


async def claim_data_removal(deps: Dependencies, tenant_id: str) -> ClaimDataRemovalResponse:
    """Give one that is due to the caller; after the lease it is due again."""
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
    """Forget a removal that is done; one that failed is tried again later, and says why.

    Raises:
        NotFoundError: A removal is said to have failed that is done.
    """
    instance_id, problem = request.instance_id.lower(), redact(request.problem)
    async with deps.database.transaction(tenant_id) as connection:
        if not problem:
            await store.delete_removal(connection, tenant_id, instance_id)
            _log.info("data removed", instance_id=instance_id)
            return FinishDataRemovalResponse()
        attempts = await store.lock_attempts(connection, tenant_id, instance_id)
        if attempts is None:
            raise errors.data_removal_not_found(instance_id)
        due_time = deps.clock.now() + retry_delay(attempts)
        await store.postpone_removal(connection, tenant_id, instance_id, problem, due_time)
    _log.warning("data not removed", instance_id=instance_id, attempts=attempts, problem=problem)
    return FinishDataRemovalResponse()
