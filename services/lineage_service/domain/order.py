"""Distances and execution levels in the graph; pure functions without recursion, because chains can be long."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence


def adjacency(pairs: Iterable[tuple[int, int]]) -> Mapping[int, list[int]]:
    """Group pairs by their first member: return the second members for each first member."""
    neighbours: defaultdict[int, list[int]] = defaultdict(list)
    for first, second in pairs:
        neighbours[first].append(second)
    return neighbours


def distances(
    starts: Collection[int], neighbours: Mapping[int, Sequence[int]], max_depth: int = 0
) -> dict[int, int]:
    """Return the distance in edges from the nearest start to each other reachable flow, nearest first; depth 0 means no limit."""
    depths = dict.fromkeys(starts, 0)
    queue = deque(starts)
    while queue:
        flow_id = queue.popleft()
        if max_depth and depths[flow_id] == max_depth:
            continue
        for neighbour in neighbours.get(flow_id, ()):
            if neighbour not in depths:
                depths[neighbour] = depths[flow_id] + 1
                queue.append(neighbour)
    return {flow_id: depth for flow_id, depth in depths.items() if depth}


def reachable(starts: Iterable[int], neighbours: Mapping[int, Sequence[int]]) -> set[int]:
    """Return the starts and all flows that can be reached from them."""
    found = set(starts)
    queue = deque(found)
    while queue:
        for neighbour in neighbours.get(queue.popleft(), ()):
            if neighbour not in found:
                found.add(neighbour)
                queue.append(neighbour)
    return found


def execution_levels(wanted: Iterable[int], edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Sort the wanted flows into levels, so that each flow comes after all wanted flows upstream of it.

    `edges` holds (upstream, downstream) pairs for all flows upstream of the wanted ones. A path may lead through flows
    that are not wanted.
    """
    wanted_ids = set(wanted)
    waiting: defaultdict[int, int] = defaultdict(int)
    downstreams: defaultdict[int, list[int]] = defaultdict(list)
    nodes = set(wanted_ids)
    for upstream, downstream in set(edges):
        waiting[downstream] += 1
        downstreams[upstream].append(downstream)
        nodes |= {upstream, downstream}
    level = dict.fromkeys(nodes, 0)
    ready = deque(sorted(node for node in nodes if not waiting[node]))
    while ready:
        node = ready.popleft()
        below = level[node] + (node in wanted_ids)
        for downstream in downstreams[node]:
            level[downstream] = max(level[downstream], below)
            waiting[downstream] -= 1
            if not waiting[downstream]:
                ready.append(downstream)
    levels: defaultdict[int, list[int]] = defaultdict(list)
    for flow_id in sorted(wanted_ids):
        levels[level[flow_id]].append(flow_id)
    return [levels[number] for number in sorted(levels)]
