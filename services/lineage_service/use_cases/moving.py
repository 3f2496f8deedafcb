"""Moves of data: run-service says where a tenant's data lies now; no flow changes by it."""

from __future__ import annotations

from lineage_service.use_cases.dependencies import Dependencies
from optaic.lineage.v1.lineage_service_pb2 import MoveDataRootRequest, MoveDataRootResponse
from optaic.rules.locations import spellings
from servicekit import audit, idempotency
from servicekit.context import RequestContext
from servicekit.moved_roots import move_roots

_METHOD = "MoveDataRoot"


async def move_data_root(
    deps: Dependencies, context: RequestContext, request: MoveDataRootRequest
) -> MoveDataRootResponse:
    """Read whatever is recorded below one root below another one.

    Raises:
        AlreadyExistsError: The request id was used before for a different request.
    """
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    async with deps.database.transaction(tenant_id) as connection:
        replay = await idempotency.replay_or_none(connection, _METHOD, request.request_id, payload_hash)
        if replay is None:
            await move_roots(connection, tenant_id, spellings(request.from_root), request.to_root)
            audit.note("data_root")
            await idempotency.store(connection, _METHOD, request.request_id, b"")
    return MoveDataRootResponse()
