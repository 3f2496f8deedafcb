"""Read which versions of a model have been promoted; nothing is changed."""

from __future__ import annotations

from instance_service.store import promotions
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.instances.reading import get_instance
from optaic.instance.v1.instance_service_pb2 import (
    GetInstanceRequest,
    ListModelPromotionsRequest,
    ListModelPromotionsResponse,
)
from optaic.instance.v1.spec_pb2 import ModelPromotion
from optaic.rules.pages import DEFAULT_SIZE
from servicekit import pages


async def list_model_promotions(
    deps: Dependencies, tenant_id: str, request: ListModelPromotionsRequest
) -> ListModelPromotionsResponse:
    """Return a page of promotions, newest first.

    Raises:
        NotFoundError: The instance does not exist.
    """
    instance_id = request.instance_id.lower()
    tokens = pages.PageTokens(deps.signer, tenant_id, "ListModelPromotions", instance_id)
    before = tokens.decode(request.page_token).get("revision")
    size = request.page_size or DEFAULT_SIZE
    await get_instance(deps, tenant_id, GetInstanceRequest(instance_id=instance_id))
    async with deps.database.read(tenant_id) as connection:
        rows = await promotions.list_promotions(connection, tenant_id, instance_id, before, size + 1)
    page = pages.fit(rows, size, lambda row: len(row.snapshot))
    response = ListModelPromotionsResponse(
        promotions=[ModelPromotion.FromString(row.snapshot) for row in page]
    )
    if len(rows) > len(page):
        response.next_page_token = tokens.encode({"revision": page[-1].revision})
    return response
