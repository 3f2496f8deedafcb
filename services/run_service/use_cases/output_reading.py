"""Tell workers what the runs of an instance keep of their output folders and of their flows' data; nothing is changed."""

from __future__ import annotations

from optaic.rules.pages import DEFAULT_SIZE
from optaic.run.v1 import run_service_pb2
from run_service.store import run_outputs
from run_service.use_cases.dependencies import Dependencies
from servicekit import pages
from servicekit.context import RequestContext


async def list_run_outputs(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.ListRunOutputsRequest
) -> run_service_pb2.ListRunOutputsResponse:
    """Return a page of what the runs of an instance keep.

    Raises:
        InvalidArgumentError: INVALID_PAGE_TOKEN.
    """
    tenant_id, instance_id = context.tenant_id, request.instance_id
    tokens = pages.PageTokens(deps.signer, tenant_id, "ListRunOutputs", instance_id)
    after = tokens.decode(request.page_token).get("run_id", "")
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        found = await run_outputs.list_run_outputs(
            connection, tenant_id, instance_id, after=after, limit=size + 1
        )
    page = pages.fit(found, size, lambda each: each.ByteSize())
    response = run_service_pb2.ListRunOutputsResponse(run_outputs=page)
    if len(found) > len(page):
        response.next_page_token = tokens.encode({"run_id": page[-1].run_id})
    return response
