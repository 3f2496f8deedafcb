"""The freshness of flows at a revision, which follows from what each of them was then; pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple


class Moment(NamedTuple):
    """A revision of the tenant's graph, and when it was made."""

    revision: int
    time: datetime | None  # None: nothing had happened yet


class Base(NamedTuple):
    """The facts that decide the freshness of some flows; everything above them must be included.

    The last three are columns of the connected edges. A million flows fit into memory so.
    """

    versions: Mapping[int, int]  # by flow
    with_own_cause: Sequence[int]  # the ids of the flows that have one
    downstream_ids: Sequence[int]
    upstream_ids: Sequence[int]
    compared_versions: Sequence[int]

    def with_more(self, more: Base) -> Base:
        """Return the facts of these flows and of others, none of which is among them."""
        return Base(
            {**self.versions, **more.versions},
            *([*own, *other] for own, other in zip(self[1:], more[1:], strict=True)),
        )

    def pairs(self) -> list[tuple[int, int]]:
        """Return (upstream, downstream) of the edges, each pair once."""
        return list(dict.fromkeys(zip(self.upstream_ids, self.downstream_ids, strict=True)))


def fresh_flows(base: Base) -> set[int]:
    """Return the flows that were fresh: no cause of their own, and every direct upstream fresh with the version compared."""
    versions = base.versions
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
