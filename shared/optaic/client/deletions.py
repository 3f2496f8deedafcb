"""Preview deletions, and list the data of deleted instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optaic.client.connection import Connection
from optaic.client.definitions import all_pages
from optaic.instance.v1 import data_removal_service_pb2 as removal_api
from optaic.instance.v1 import instance_service_pb2 as api
from optaic.instance.v1.data_removal_service_pb2_grpc import DataRemovalServiceStub
from optaic.instance.v1.instance_service_pb2_grpc import InstanceServiceStub
from optaic.rules.pages import LARGEST_SIZE, LONG_LARGEST_SIZE


async def preview_deletion(
    connection: Connection, request: api.PreviewDeletionRequest
) -> api.PreviewDeletionResponse:
    """Return the list whole, page by page."""
    whole, request.page_size = api.PreviewDeletionResponse(), LONG_LARGEST_SIZE
    while True:
        page: api.PreviewDeletionResponse = await connection.call(
            "instance", InstanceServiceStub, "PreviewDeletion", request
        )
        whole.instances.extend(page.instances)
        if not page.next_page_token:
            whole.preview_etag, whole.total_size = page.preview_etag, page.total_size
            return whole
        request.page_token = page.next_page_token


async def list_data_removals(connection: Connection) -> Sequence[removal_api.DataRemoval]:
    """Return the deleted instances whose data still exists."""

    async def page(request: Any) -> Any:
        return await connection.call("instance", DataRemovalServiceStub, "ListDataRemovals", request)

    return await all_pages(page, removal_api.ListDataRemovalsRequest(page_size=LARGEST_SIZE), "data_removals")
