"""Invalidation: a user declares that the output of a flow is invalid."""

from __future__ import annotations

from lineage_service import conversion
from lineage_service.domain.errors import flow_not_found
from lineage_service.store import flows
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.facts import apply_own_causes
from lineage_service.use_cases.reading import load_state, state_message
from optaic.lineage.v1.lineage_pb2 import FlowState
from optaic.lineage.v1.lineage_service_pb2 import InvalidateFlowRequest
from servicekit import audit, idempotency
from servicekit.context import RequestContext
from servicekit.database import lock_tenant


async def invalidate_flow(
    deps: Dependencies, context: RequestContext, request: InvalidateFlowRequest
) -> FlowState:
    """Declare a flow's output invalid until the flow runs again; a repeated request returns the current state.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        AlreadyExistsError: The request id was used before for a different request.
    """
    tenant_id, key = context.tenant_id, conversion.flow_key(request.flow)
    payload_hash = idempotency.payload_hash(request)
    async with deps.database.transaction(tenant_id) as connection:
        replay = await idempotency.replay_or_none(
            connection, "InvalidateFlow", request.request_id, payload_hash
        )
        if replay is None:
            await lock_tenant(connection, tenant_id)
            flow_id = await flows.invalidate_flow(connection, tenant_id, key, request.reason, context.actor)
            if flow_id is None:
                raise flow_not_found(key)
            await apply_own_causes(deps, connection, tenant_id, {flow_id})
            audit.note(f"flows/{key.instance_id}/{key.flow_kind}", reason=request.reason)
            await idempotency.store(connection, "InvalidateFlow", request.request_id, b"")
        return state_message(await load_state(connection, tenant_id, key))
