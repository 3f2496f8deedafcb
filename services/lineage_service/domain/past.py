"""The freshness of flows at a revision, which follows from what each of them was then; pure functions."""

from __future__ import annotations

from array import array
from datetime import datetime
from typing import NamedTuple


class Moment(NamedTuple):
    """A revision of the tenant's graph, and when it was made."""

    revision: int
    time: datetime | None  # None: nothing had happened yet


class Base:
    """The facts that decide the freshness of some flows; everything above them must be included.

    The last three are columns of the connected edges, those into one flow together and in the order of the upstreams. A million
    flows fit into memory so.
    """

    def __init__(self) -> None:
        self.versions: dict[int, int] = {}  # by flow
        self.with_own_cause: set[int] = set()
        self.downstream_ids = array("q")
        self.upstream_ids = array("q")
        self.compared_versions = array("q")

    def pairs(self) -> list[tuple[int, int]]:
        """Return (upstream, downstream) of the edges, each pair once."""
        found: list[tuple[int, int]] = []
        last = None
        for pair in zip(self.upstream_ids, self.downstream_ids, strict=True):
            if pair != last:
                found.append(pair)
            last = pair
        return found


def stale_flows(base: Base) -> set[int]:
    """Return the flows that were not fresh.

    Such a flow has a cause of its own, or a direct upstream that was not fresh or not at the version compared.
    """
    versions = base.versions
    below: dict[int, list[int]] = {}
    stale = set(base.with_own_cause)
    edges = zip(base.upstream_ids, base.downstream_ids, base.compared_versions, strict=True)
    for upstream_id, downstream_id, compared in edges:
        if versions[upstream_id] != compared:
            stale.add(downstream_id)
        else:
            below.setdefault(upstream_id, []).append(downstream_id)
    front = list(stale)
    while front:
        found = [flow_id for flow_id in below.pop(front.pop(), ()) if flow_id not in stale]
        stale.update(found)
        front += found
    return stale
