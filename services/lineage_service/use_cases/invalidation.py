"""Invalidation: a user declares that the output of a flow is invalid."""

from __future__ import annotations

from lineage_service.domain.errors import flow_not_found
from lineage_service.domain.flows import FlowKey
from lineage_service.store import flows
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.facts import apply_invalidation
from lineage_service.use_cases.reading import State, get_flow, list_states
from servicekit import audit, idempotency
from servicekit.database import lock_tenant


async def invalidate_flow(
    deps: Dependencies,
    tenant_id: str,
    key: FlowKey,
    reason: str,
    request_id: str,
    payload_hash: bytes,
    *,
    actor: str = "",
) -> State:
    """Declare a flow's output invalid until the flow runs again; a repeated request returns the current state.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        AlreadyExistsError: The request id was used before for a different request.
    """
    async with deps.database.transaction(tenant_id) as connection:
        replay = await idempotency.replay_or_none(connection, "InvalidateFlow", request_id, payload_hash)
        if replay is None:
            await lock_tenant(connection, tenant_id)
            flow_id = await flows.invalidate_flow(connection, tenant_id, key, reason, actor)
            if flow_id is None:
                raise flow_not_found(key)
            await apply_invalidation(deps, connection, tenant_id, flow_id)
            audit.note(f"flows/{key.instance_id}/{key.flow_kind}", reason=reason)
            await idempotency.store(connection, "InvalidateFlow", request_id, b"")
        flow = await get_flow(connection, tenant_id, key)
        return (await list_states(connection, tenant_id, [flow.flow_id]))[0]
