"""The freshness of flows at a revision, which follows from what each of them was then; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple


class Moment(NamedTuple):
    """A revision of the tenant's graph, and when it was made."""

    revision: int
    time: datetime | None  # None: nothing had happened yet


class Base(NamedTuple):
    """The facts that decide the freshness of some flows; everything above them must be included.

    The lists are columns: the first three of flows, the others of connected edges. A million flows fit into memory so.
    """

    flow_ids: Sequence[int]
    versions: Sequence[int]
    with_own_cause: Sequence[int]  # the ids of those that have one
    downstream_ids: Sequence[int]
    upstream_ids: Sequence[int]
    compared_versions: Sequence[int]


def fresh_flows(base: Base) -> set[int]:
    """Return the flows that were fresh: no cause of their own, and every direct upstream fresh with the version compared."""
    versions = dict(zip(base.flow_ids, base.versions, strict=True))
    below: dict[int, list[int]] = {}
    stale = set(base.with_own_cause)
    edges = zip(base.upstream_ids, base.downstream_ids, base.compared_versions, strict=True)
    for upstream_id, downstream_id, compared in edges:
        below.setdefault(upstream_id, []).append(downstream_id)
        if versions[upstream_id] != compared:
            stale.add(downstream_id)
    front = list(stale)
    while front:
        found = [flow_id for flow_id in below.pop(front.pop(), ()) if flow_id not in stale]
        stale.update(found)
        front += found
    return versions.keys() - stale
