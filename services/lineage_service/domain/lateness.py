"""The rule that late data keeps no reader from running; pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from lineage_service.domain.causes import TIME_CAUSES, Graph, local_causes
from lineage_service.domain.flows import Flow
from lineage_service.domain.statuses import Word


def count_as_ready(graph: Graph, flows: Iterable[Flow]) -> set[int]:
    """Return the ids of those flows that are stale for no other root cause than late data that blocks no reader.

    The graph must hold all flows above them that are not fresh, and the direct upstreams of each.
    """
    decided: dict[int, bool] = {}
    for flow in flows:
        _decide(graph, flow, decided)
    return {flow.flow_id for flow in flows if flow.word is Word.STALE and decided[flow.flow_id]}


def _decide(graph: Graph, start: Flow, decided: dict[int, bool]) -> None:
    """Decide of a flow, and of all above it that are not fresh, whether only late data made it stale; without recursion."""
    stack = [start]
    while stack:
        flow = stack[-1]
        stale = [upstream for upstream in graph.upstreams_of(flow) if not upstream.is_fresh]
        waiting = [upstream for upstream in stale if upstream.flow_id not in decided]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        decided[flow.flow_id] = (
            not (flow.is_late and flow.blocks_readers)
            and all(cause.kind in TIME_CAUSES for cause in local_causes(graph, flow))
            and all(decided[upstream.flow_id] for upstream in stale)
        )
