"""Searches in the graph of instances, given its edges."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from graphlib import TopologicalSorter


def downstream_first(starts: Iterable[str], edges: Iterable[tuple[str, str]]) -> list[str]:
    """Return `starts` and the nodes of (reader, read) edges in a stable order, every reader before what it reads."""
    readers: dict[str, list[str]] = {start: [] for start in sorted(starts)}
    for reader, read in sorted(set(edges)):
        readers.setdefault(read, []).append(reader)
    return list(TopologicalSorter(readers).static_order())


def shortest_cycle(edges: Iterable[tuple[str, str]], start: str) -> list[str]:
    """Return the nodes of a shortest cycle through `start`, which is first and last; empty if there is none."""
    followers: dict[str, list[str]] = defaultdict(list)
    for one, other in edges:
        followers[one].append(other)
    came_from: dict[str, str] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for follower in sorted(followers[node]):
            if follower == start:
                path = [start, node]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if follower not in came_from:
                came_from[follower] = node
                queue.append(follower)
    return []
