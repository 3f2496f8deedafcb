"""The rules for flows that only late data made stale; pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lineage_service.domain.causes import TIME_CAUSES, Graph, local_causes
from lineage_service.domain.flows import Flow
from lineage_service.domain.order import adjacency, reachable
from lineage_service.domain.statuses import Word


class Lateness(NamedTuple):
    """The flows of a graph that are late: all of whose root causes are time causes, and those with one of their own."""

    late_only: frozenset[int]
    own: frozenset[int]


def lateness_of(graph: Graph) -> Lateness:
    """Return which flows of a graph are late.

    The graph holds the flows that are asked about, all flows above them that are not fresh, and the direct upstreams of both.
    """
    stale = _stale(graph)
    kinds = {flow.flow_id: {cause.kind for cause in local_causes(graph, flow)} for flow in stale}
    own = frozenset(flow_id for flow_id, each in kinds.items() if each & TIME_CAUSES)
    others = {flow_id for flow_id, each in kinds.items() if each - TIME_CAUSES}
    return Lateness(frozenset(kinds.keys() - _with_all_below(graph, stale, others)), own)


def count_as_ready(graph: Graph, flows: Iterable[Flow]) -> set[int]:
    """Return the ids of those flows that are stale for no other root cause than late data that blocks no reader.

    The graph must hold all flows above them that are not fresh, and the direct upstreams of each.
    """
    stale = _stale(graph)
    blocking = {flow.flow_id for flow in stale if _blocks(graph, flow)}
    blocked = _with_all_below(graph, stale, blocking)
    return {flow.flow_id for flow in flows if flow.word is Word.STALE} - blocked


def _blocks(graph: Graph, flow: Flow) -> bool:
    is_blocking_late = flow.is_late and flow.blocks_readers
    return is_blocking_late or any(cause.kind not in TIME_CAUSES for cause in local_causes(graph, flow))


def _stale(graph: Graph) -> list[Flow]:
    return [flow for flow in graph.flows.values() if not flow.is_fresh]


def _with_all_below(graph: Graph, stale: Iterable[Flow], starts: Iterable[int]) -> set[int]:
    """Return the starts, and those of the flows that are not fresh and lie below one of them."""
    pairs = ((upstream.flow_id, flow.flow_id) for flow in stale for upstream in graph.upstreams_of(flow))
    return reachable(starts, adjacency(pairs))
