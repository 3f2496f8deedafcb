"""Plan which flows a refresh has to look at, and in which order; pure functions without recursion, because chains can be long."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable
from typing import NamedTuple

from lineage_service.domain.order import adjacency, reachable


class Place(NamedTuple):
    """The place of a flow in a plan."""

    level: int
    upstream_ids: frozenset[int]  # those of the plan above it without another one of the plan in between


def members_of_plan(
    candidates: Collection[int], waiting: Collection[int], pairs: Iterable[tuple[int, int]]
) -> set[int]:
    """Return the candidates that are `waiting` to be run, and those below one of them, which may become stale.

    `pairs` holds (upstream, downstream) for all edges above the candidates.
    """
    return reachable(set(waiting).intersection(candidates), adjacency(pairs)).intersection(candidates)


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
