"""Answer which flows a refresh has to look at, in which order and why, from one database snapshot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lineage_service import conversion
from lineage_service.domain.causes import Graph, blocking_reason, state_causes
from lineage_service.domain.errors import plan_too_large, too_many_flows
from lineage_service.domain.flows import Flow
from lineage_service.domain.lateness import lateness_of
from lineage_service.domain.planning import Place, members_of_plan, places_of_plan
from lineage_service.domain.statuses import Word
from lineage_service.store import closures, plans, reads
from lineage_service.store.propagation import format_ids
from lineage_service.use_cases.dependencies import Dependencies
from optaic.common.v1.flow_pb2 import FlowRef
from optaic.lineage.v1.lineage_service_pb2 import PlanFlowsRequest, PlanFlowsResponse
from servicekit import off_loop, pages
from servicekit.database import Connection

_BYTES_OF_A_FLOW, _BYTES_OF_A_PAIR = 300, 16  # about


@dataclass(frozen=True)
class _Chosen:
    """The flows of a plan, before it is known why they are not READY."""

    places: dict[int, Place]
    target_ids: set[int]


async def plan_flows(deps: Dependencies, tenant_id: str, request: PlanFlowsRequest) -> PlanFlowsResponse:
    """Return the flows that a refresh has to look at, level by level.

    Raises:
        ResourceExhaustedError: TOO_MANY_FLOWS.
    """
    async with deps.database.read(tenant_id) as connection:
        chosen = await _choose(connection, tenant_id, request)
        graph = await reads.load_causes_graph(connection, tenant_id, list(chosen.places))
        revision = await plans.get_revision(connection, tenant_id)
    size = len(graph.flows) * _BYTES_OF_A_FLOW
    return await off_loop.run_if_large(size, lambda: _answer(graph, chosen, revision))


async def _choose(connection: Connection, tenant_id: str, request: PlanFlowsRequest) -> _Chosen:
    planned_keys, target_keys = await off_loop.run_if_large(
        request.ByteSize(), lambda: (_keys(request.planned), _keys(request.flows))
    )
    planned = await plans.find_flows(connection, tenant_id, planned_keys)
    if request.all:
        targets = await plans.list_flows(
            connection, tenant_id, only_waiting=not request.include_ready, most=request.max_flows
        )
        if len(targets) > request.max_flows:
            raise too_many_flows(request.max_flows)
    else:
        targets = await plans.find_flows(connection, tenant_id, target_keys)
        targets |= await plans.find_flows_of(connection, tenant_id, request.instance_ids)
    wanted = {**planned, **targets}
    if request.include_downstream or request.all:
        below = await closures.list_closure(connection, tenant_id, list(targets), is_upstream=False)
        wanted |= await plans.list_states(connection, tenant_id, await _others(below, wanted))
    pairs = await closures.list_closure(connection, tenant_id, list(wanted), is_upstream=True)
    if request.include_upstream:
        wanted |= await plans.list_states(connection, tenant_id, await _others(pairs, wanted))

    def choose() -> dict[int, Place]:
        waiting = {flow_id for flow_id, is_waiting in wanted.items() if is_waiting}
        members = set(wanted) if request.include_ready else members_of_plan(wanted, waiting, pairs)
        return places_of_plan(members | planned.keys(), pairs)

    places = await off_loop.run_if_large(len(pairs) * _BYTES_OF_A_PAIR, choose)
    if len(places) > request.max_flows:
        raise too_many_flows(request.max_flows)
    return _Chosen(places, set(places) if request.all else set(targets))


async def _others(pairs: Sequence[tuple[int, int]], known: Collection[int]) -> str:
    """Return the flows of pairs that are not known, as the text of an array: there may be very many."""

    def others() -> str:
        return format_ids({flow_id for pair in pairs for flow_id in pair if flow_id not in known})

    return await off_loop.run_if_large(len(pairs) * _BYTES_OF_A_PAIR, others)


def _keys(flows: Sequence[FlowRef]) -> list[tuple[str, str]]:
    return [conversion.flow_key(flow) for flow in flows]


def _answer(graph: Graph, chosen: _Chosen, revision: int) -> PlanFlowsResponse:
    def order(flow_id: int) -> tuple[int, str, tuple[str, str]]:
        flow = graph.flows[flow_id]
        return (chosen.places[flow_id].level, flow.instance_name, flow.key)

    ids = sorted(chosen.places, key=order)
    indexes = {flow_id: index for index, flow_id in enumerate(ids)}
    late = lateness_of(graph)
    answer, left = PlanFlowsResponse(lineage_revision=revision), pages.LONG_MOST_BYTES
    for flow_id in ids:
        flow, place = graph.flows[flow_id], chosen.places[flow_id]
        planned = answer.flows.add(
            flow=conversion.flow_ref(*flow.key),
            instance_name=flow.instance_name,
            status=conversion.status_of(flow),
            reason=_reason(graph, flow),
            run_number=flow.run_number,
            is_target=flow_id in chosen.target_ids,
            is_late_only=flow_id in late.late_only,
            has_own_lateness=flow_id in late.own,
            upstream_indexes=sorted(indexes[each] for each in place.upstream_ids),
            level=place.level,
            active_run_id=flow.last_run_id if flow.word is Word.RUNNING else "",
        )
        left -= planned.ByteSize()
        if left < 0:
            raise plan_too_large(len(ids))
    return answer


def _reason(graph: Graph, flow: Flow) -> str:
    return "" if flow.word is Word.READY else blocking_reason(flow, state_causes(graph, flow))
