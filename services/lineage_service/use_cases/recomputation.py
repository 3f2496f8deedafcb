"""Recomputation: what is stored of flows is compared with what follows from the facts, and repaired; nothing is expected to differ."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import structlog

from lineage_service import conversion
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.recomputation import is_right
from lineage_service.store import closures, edges, policies, propagation, reads, recomputation, versions
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.facts import apply_own_causes
from optaic.lineage.v1.lineage_service_pb2 import RecomputeFreshnessRequest, RecomputeFreshnessResponse
from optaic.rules.pages import DEFAULT_SIZE
from servicekit import audit, idempotency, pages
from servicekit.context import RequestContext
from servicekit.database import Connection, lock_tenant

PART = 500  # flows compared at once
_MOST_NAMED = 20  # in one line of the log
_METHOD = "RecomputeFreshness"
_log = structlog.get_logger(__name__)


class Part(NamedTuple):
    """The findings of the comparison of a part of a tenant's flows."""

    compared: int
    repaired: list[FlowKey]
    last: int  # the id of the last flow compared; 0: no flow is left


async def list_tenants(deps: Dependencies) -> list[str]:
    """Return the tenants that have flows."""
    async with deps.database.infra() as connection:
        return await recomputation.list_tenants(connection)


async def recompute_part(deps: Dependencies, tenant_id: str, after: int) -> Part:
    """Compare the next flows after an id, and repair what differs."""
    async with deps.database.read(tenant_id) as connection:
        flow_ids, wrong = await _compare_part(connection, tenant_id, after, PART)
    repaired: list[FlowKey] = []
    if wrong:
        async with deps.database.transaction(tenant_id) as connection:
            repaired = await _repair(deps, connection, tenant_id, wrong)
    return Part(len(flow_ids), repaired, _last(flow_ids, PART))


async def recompute_freshness(
    deps: Dependencies, context: RequestContext, request: RecomputeFreshnessRequest
) -> RecomputeFreshnessResponse:
    """Compare a part of the flows and repair what differs, because an operator asks for it.

    Raises:
        InvalidArgumentError: INVALID_PAGE_TOKEN.
        AlreadyExistsError: The request id was used before for a different request.
    """
    tenant_id = context.tenant_id
    tokens = pages.PageTokens(deps.signer, tenant_id, _METHOD)
    after = int(tokens.decode(request.page_token).get("flow", 0))
    size = request.page_size or DEFAULT_SIZE
    payload_hash = idempotency.payload_hash(request)
    async with deps.database.transaction(tenant_id) as connection:
        replay = await idempotency.replay_or_none(connection, _METHOD, request.request_id, payload_hash)
        if replay is not None:
            return RecomputeFreshnessResponse.FromString(replay)
        flow_ids, wrong = await _compare_part(connection, tenant_id, after, size)
        repaired = await _repair(deps, connection, tenant_id, wrong) if wrong else []
        last = _last(flow_ids, size)
        answer = RecomputeFreshnessResponse(
            compared_count=len(flow_ids),
            repaired_flows=[conversion.flow_ref(*key) for key in repaired],
            next_page_token=tokens.encode({"flow": last}) if last else "",
        )
        audit.note("flows")
        await idempotency.store(connection, _METHOD, request.request_id, answer.SerializeToString())
        return answer


def _last(flow_ids: Sequence[int], size: int) -> int:
    return flow_ids[-1] if len(flow_ids) == size else 0


async def _compare_part(
    connection: Connection, tenant_id: str, after: int, size: int
) -> tuple[list[int], set[int]]:
    """Return the ids of the next flows, and which of them are wrong; without the lock some may only seem to be."""
    flow_ids = await recomputation.list_part(connection, tenant_id, after, size)
    return flow_ids, await _find_wrong(connection, tenant_id, flow_ids)


async def _find_wrong(connection: Connection, tenant_id: str, flow_ids: Collection[int]) -> set[int]:
    """Return the flows whose version, consumed versions or freshness are not what follows from the facts."""
    graph = await reads.load_direct_graph(connection, tenant_id, flow_ids)
    wrong = {flow_id for flow_id in flow_ids if not is_right(graph, graph.flows[flow_id])}
    wrong |= await versions.list_not_current(connection, tenant_id, flow_ids)
    return wrong | await edges.list_unresolved(connection, tenant_id, flow_ids)


async def _repair(
    deps: Dependencies, connection: Connection, tenant_id: str, suspects: Collection[int]
) -> list[FlowKey]:
    """Repair the suspects that are wrong, and whatever is wrong above them; return what was repaired.

    A flow may only seem to be wrong, or right, as long as one above it is believed that is wrong itself. So they are repaired
    together, under the tenant's lock, and no wrong freshness is published in between.
    """
    await lock_tenant(connection, tenant_id)
    wrong = await _find_wrong(connection, tenant_id, suspects)
    if not wrong:
        return []
    pairs = await closures.list_closure(connection, tenant_id, wrong, is_upstream=True)
    above = sorted({upstream for upstream, _ in pairs} - wrong)
    for start in range(0, len(above), PART):
        wrong |= await _find_wrong(connection, tenant_id, above[start : start + PART])
    before = await reads.list_flows(connection, tenant_id, wrong)
    moves, late = await versions.set_current(connection, tenant_id, wrong)
    if late:  # since another time, which the sweep finds out
        await policies.judge_again(connection, tenant_id, late, deps.clock.now())
    resolved = await edges.resolve(connection, tenant_id, wrong)
    # A version that moved back may make readers fresh that are not wrong themselves.
    moved = {move.flow_id for move in moves}
    readers = await propagation.list_dependants(connection, tenant_id, moved, revision=-1)
    await apply_own_causes(deps, connection, tenant_id, wrong | readers, moves)
    after = {flow.flow_id: flow.is_fresh for flow in await reads.list_flows(connection, tenant_id, wrong)}
    changed = {flow.flow_id for flow in before if flow.is_fresh is not after[flow.flow_id]}
    keys = sorted(flow.key for flow in before if flow.flow_id in changed | moved | resolved)
    named = ["/".join(key) for key in keys[:_MOST_NAMED]]
    _log.error("freshness repaired", tenant=tenant_id, count=len(keys), flows=named)
    return keys
