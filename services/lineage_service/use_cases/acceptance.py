"""Accepted staleness: a user declares that the output of a stale flow is right as it is, or takes that back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lineage_service import conversion
from lineage_service.domain import errors
from lineage_service.domain.acceptance import check_acceptable
from lineage_service.domain.flows import Flow
from lineage_service.store import acceptance, edges, reads
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.facts import apply_own_causes
from lineage_service.use_cases.reading import get_flow, load_state, state_message
from optaic.lineage.v1.lineage_pb2 import FlowState
from optaic.lineage.v1.lineage_service_pb2 import AcceptStalenessRequest, RevokeAcceptedStalenessRequest
from servicekit import audit, idempotency
from servicekit.context import RequestContext
from servicekit.database import Connection, lock_tenant


async def accept_staleness(
    deps: Dependencies, context: RequestContext, request: AcceptStalenessRequest
) -> FlowState:
    """Declare a stale output right for the present configuration and inputs; a repeated request returns the current state.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        FailedPreconditionError: FLOW_IS_RUNNING, FLOW_WITHOUT_OUTPUT, FLOW_IS_FRESH or UPSTREAM_NOT_FRESH.
        AlreadyExistsError: The request id was used before for a different request.
    """
    tenant_id = context.tenant_id

    async def accept(connection: Connection, flow: Flow) -> None:
        graph = await reads.load_direct_graph(connection, tenant_id, [flow.flow_id])
        check_acceptable(flow, graph.upstreams_of(flow))
        now = deps.clock.now()
        await acceptance.accept(connection, tenant_id, flow.flow_id, request.reason, context.actor, now)

    return await _declare(deps, tenant_id, "AcceptStaleness", request, accept)


async def revoke_accepted_staleness(
    deps: Dependencies, context: RequestContext, request: RevokeAcceptedStalenessRequest
) -> FlowState:
    """Take an acceptance back; a repeated request returns the current state.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        FailedPreconditionError: NOTHING_ACCEPTED.
        AlreadyExistsError: The request id was used before for a different request.
    """
    tenant_id = context.tenant_id

    async def revoke(connection: Connection, flow: Flow) -> None:
        if flow.accepted_fingerprint is None:
            raise errors.nothing_accepted(flow.instance_name)
        await acceptance.revoke(connection, tenant_id, flow.flow_id)
        await edges.prune(connection, tenant_id, [flow.flow_id])

    return await _declare(deps, tenant_id, "RevokeAcceptedStaleness", request, revoke)


async def _declare(
    deps: Dependencies,
    tenant_id: str,
    method: str,
    request: AcceptStalenessRequest | RevokeAcceptedStalenessRequest,
    change: Callable[[Connection, Flow], Awaitable[None]],
) -> FlowState:
    """Make a change of one flow once for its request id, and propagate it."""
    key = conversion.flow_key(request.flow)
    payload_hash = idempotency.payload_hash(request)
    async with deps.database.transaction(tenant_id) as connection:
        replay = await idempotency.replay_or_none(connection, method, request.request_id, payload_hash)
        if replay is None:
            await lock_tenant(connection, tenant_id)
            flow = await get_flow(connection, tenant_id, key)
            await change(connection, flow)
            await apply_own_causes(deps, connection, tenant_id, {flow.flow_id})
            audit.note(f"flows/{key.instance_id}/{key.flow_kind}", reason=request.reason)
            await idempotency.store(connection, method, request.request_id, b"")
        return state_message(await load_state(connection, tenant_id, key))
