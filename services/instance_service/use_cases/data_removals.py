"""The data of instances that are gone: remembered with their end, given to workers, forgotten once it is removed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from instance_service.domain.data_removal import deleted_until, remove_time, retry_delay
from instance_service.resources.conversion import timestamp
from instance_service.store import data_removals as store
from instance_service.store.tables import Connection
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.data_removal_service_pb2 import (
    ClaimDataRemovalResponse,
    DataRemoval,
    FinishDataRemovalRequest,
    FinishDataRemovalResponse,
    ListDataRemovalsRequest,
    ListDataRemovalsResponse,
    UsedStore,
)
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules.data_removals import CLAIM
from optaic.rules.pages import DEFAULT_SIZE
from redaction import redact
from servicekit import pages
from servicekit.errors import NotFoundError

_MOST_BYTES = 256 * 1024  # of the stores of one instance: somebody may give it another one each minute
_SELECTION = pages.filter_hash("data removals")
_log = structlog.get_logger(__name__)


async def remember_data(
    deps: Dependencies, connection: Connection, tenant_id: str, gone: Sequence[Instance]
) -> None:
    """Write down whose data is to be removed, in the transaction in which the instances go."""
    ids = [instance.instance_id for instance in gone]
    with_output = await store.list_with_output(connection, tenant_id, ids)
    stores: dict[str, dict[bytes, UsedStore]] = {instance_id: {} for instance_id in ids}
    for instance_id, snapshot in await store.list_used_stores(connection, tenant_id, ids):
        component = Instance.FromString(snapshot)
        used = UsedStore(definition_version_id=component.definition_version_id, config=component.config)
        text = used.SerializeToString(deterministic=True)
        stores[instance_id].pop(text, None)  # in the order of their last use
        stores[instance_id][text] = used
    now = deps.clock.now()
    rows = []
    for instance in gone:
        removal = DataRemoval(
            instance_id=instance.instance_id,
            name=instance.name,
            kind=instance.kind,
            project_id=instance.project_id,
            stores=_newest(instance, stores[instance.instance_id]),
            has_output=instance.instance_id in with_output,
        )
        rows.append(
            {
                "tenant_id": tenant_id,
                "instance_id": instance.instance_id,
                "delete_time": now,
                "due_time": now,
                "attempts": 0,
                "problem": "",
                "snapshot": removal.SerializeToString(),
            }
        )
    await store.insert_removals(connection, rows)


def _newest(instance: Instance, used: dict[bytes, UsedStore]) -> Sequence[UsedStore]:
    """Return the stores of an instance, serialized ones given oldest first, as far as an answer takes them."""
    kept: list[UsedStore] = []
    total = 0
    for text, store_used in reversed(used.items()):
        total += len(text)
        if kept and total > _MOST_BYTES:
            _log.warning(
                "an instance had too many stores: what the oldest keep outside of its folder is not removed",
                instance_id=instance.instance_id,
                stores=len(used),
                remembered=len(kept),
            )
            break
        kept.append(store_used)
    return kept[::-1]


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
    answer = ListDataRemovalsResponse(data_removals=[_message(deps, row) for row in page])
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
    return ClaimDataRemovalResponse(data_removal=_message(deps, row) if row is not None else None)


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
            text = f"no data of an instance {instance_id} is to be removed"
            raise NotFoundError("DATA_REMOVAL_NOT_FOUND", text, metadata={"instance_id": instance_id})
        due_time = deps.clock.now() + retry_delay(attempts)
        await store.postpone_removal(connection, tenant_id, instance_id, problem, due_time)
    _log.warning("data not removed", instance_id=instance_id, attempts=attempts, problem=problem)
    return FinishDataRemovalResponse()


def _message(deps: Dependencies, row: Any) -> DataRemoval:
    removal = DataRemoval.FromString(row.snapshot)
    removal.delete_time.CopyFrom(timestamp(row.delete_time.astimezone(UTC)))
    earliest = remove_time(row.delete_time, row.due_time, deps.data_grace_seconds)
    removal.remove_time.CopyFrom(timestamp(earliest.astimezone(UTC)))
    removal.attempts, removal.problem = row.attempts, row.problem
    return removal
