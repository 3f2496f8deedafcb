"""Read the list of pending data removals; nothing is changed."""

from __future__ import annotations

from datetime import datetime

from instance_service.resources.data_removals import removal_of
from instance_service.store import data_removals as store
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.data_removal_service_pb2 import ListDataRemovalsRequest, ListDataRemovalsResponse
from optaic.rules.pages import DEFAULT_SIZE
from servicekit import pages


async def list_data_removals(
    deps: Dependencies, tenant_id: str, request: ListDataRemovalsRequest
) -> ListDataRemovalsResponse:
    """Return a page of pending data removals, in the order in which the instances were deleted."""
    tokens, after = pages.PageTokens(deps.signer, tenant_id, "ListDataRemovals"), None
    if position := tokens.decode(request.page_token):
        after = datetime.fromisoformat(position["time"]), position["id"]
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        rows = await store.list_removals(connection, tenant_id, after, size + 1)
    page = pages.fit(rows, size, lambda row: len(row.snapshot) + len(row.problem))
    answer = ListDataRemovalsResponse(
        data_removals=[removal_of(row, deps.data_grace_seconds) for row in page]
    )
    for each in answer.data_removals:
        each.ClearField("stores")  # only the workers need the configurations of the stores
    if len(rows) > len(page):
        last = page[-1]
        position = {"time": last.delete_time.isoformat(), "id": last.instance_id}
        answer.next_page_token = tokens.encode(position)
    return answer
