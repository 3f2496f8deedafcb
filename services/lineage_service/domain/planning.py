"""Plan which flows a refresh has to look at, and in which order; pure functions without recursion, because chains can be long."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from lineage_service.domain.causes import TIME_CAUSES, Graph, local_causes


class Place(NamedTuple):
    """The place of a flow in a plan."""

    level: int
    upstream_ids: frozenset[int]  # those of the plan above it without another one of the plan in between


class Lateness(NamedTuple):
    """The flows of a graph that are late: all of whose root causes are time causes, and those with one of their own."""

    late_only: frozenset[int]
    own: frozenset[int]


def members_of_plan(
    candidates: Collection[int], waiting: Collection[int], pairs: Iterable[tuple[int, int]]
) -> set[int]:
    """Return the candidates that are `waiting` to be run, and those below one of them, which may become stale.

    `pairs` holds (upstream, downstream) for all edges above the candidates.
    """
    downstreams: defaultdict[int, list[int]] = defaultdict(list)
    for upstream, downstream in pairs:
        downstreams[upstream].append(downstream)
    return _reachable(set(waiting).intersection(candidates), downstreams).intersection(candidates)


def places_of_plan(members: Collection[int], pairs: Iterable[tuple[int, int]]) -> dict[int, Place]:
    """Return the place of each member; a path between two members may lead through flows that are none.

    `pairs` holds (upstream, downstream) for all edges above the members.
    """
    wanted = set(members)
    waiting: defaultdict[int, int] = defaultdict(int)
    downstreams: defaultdict[int, list[int]] = defaultdict(list)
    nodes = set(wanted)
    for upstream, downstream in set(pairs):
        waiting[downstream] += 1
        downstreams[upstream].append(downstream)
        nodes |= {upstream, downstream}
    above: dict[int, set[int]] = {node: set() for node in nodes}
    level = dict.fromkeys(nodes, 0)
    ready = deque(sorted(node for node in nodes if not waiting[node]))
    while ready:
        node = ready.popleft()
        is_member = node in wanted
        for downstream in downstreams[node]:
            above[downstream] |= {node} if is_member else above[node]
            level[downstream] = max(level[downstream], level[node] + is_member)
            waiting[downstream] -= 1
            if not waiting[downstream]:
                ready.append(downstream)
    return {node: Place(level[node], frozenset(above[node])) for node in wanted}


def lateness_of(graph: Graph) -> Lateness:
    """Return which flows of a graph are late.

    The graph holds the flows that are asked about, all flows above them that are not fresh, and the direct upstreams of both.
    """
    stale = {flow_id for flow_id, flow in graph.flows.items() if not flow.is_fresh}
    downstreams: defaultdict[int, list[int]] = defaultdict(list)
    own, others = set(), set()
    for flow_id in stale:
        flow = graph.flows[flow_id]
        kinds = {cause.kind for cause in local_causes(graph, flow)}
        if kinds & TIME_CAUSES:
            own.add(flow_id)
        if kinds - TIME_CAUSES:
            others.add(flow_id)
        for upstream in graph.upstreams_of(flow):
            if upstream.flow_id in stale:
                downstreams[upstream.flow_id].append(flow_id)
    return Lateness(frozenset(stale - _reachable(others, downstreams)), frozenset(own))


def _reachable(starts: Collection[int], downstreams: Mapping[int, list[int]]) -> set[int]:
    found, queue = set(starts), deque(starts)
    while queue:
        for downstream in downstreams.get(queue.popleft(), ()):
            if downstream not in found:
                found.add(downstream)
                queue.append(downstream)
    return found
