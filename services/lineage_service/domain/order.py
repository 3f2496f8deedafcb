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


def execution_levels(wanted: Iterable[int], above: Mapping[int, Collection[int]]) -> list[list[int]]:
    """Sort the wanted flows into levels, so that each flow comes after all wanted flows upstream of it.

    `above` holds the direct upstreams of the wanted flows and of all flows upstream of them. A path may lead through flows
    that are not wanted.
    """
    wanted_ids = set(wanted)
    waiting: dict[int, int] = {}
    downstreams: dict[int, list[int]] = {}
    for flow_id, upstreams in above.items():
        distinct = set(upstreams)
        waiting[flow_id] = len(distinct)
        for upstream in distinct:
            downstreams.setdefault(upstream, []).append(flow_id)
    level = dict.fromkeys(wanted_ids, 0)
    ready = [flow_id for flow_id in downstreams if not waiting.get(flow_id)]
    while ready:
        flow_id = ready.pop()
        below = level.get(flow_id, 0) + (flow_id in wanted_ids)
        for downstream in downstreams.get(flow_id, ()):
            if below > level.get(downstream, 0):
                level[downstream] = below
            waiting[downstream] -= 1
            if not waiting[downstream]:
                ready.append(downstream)
    levels: defaultdict[int, list[int]] = defaultdict(list)
    for flow_id in sorted(wanted_ids):
        levels[level[flow_id]].append(flow_id)
    return [levels[number] for number in sorted(levels)]
