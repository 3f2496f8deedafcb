"""The differences between the flows and edges of two moments; pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lineage_service.domain.flows import Edge, Flow


@dataclass(frozen=True)
class EdgeDifference:
    """An edge that is there at one of two moments only, or in another way."""

    before: Edge | None
    after: Edge | None

    @property
    def edge(self) -> Edge:
        """The edge as it was last."""
        found = self.after or self.before
        assert found is not None
        return found


@dataclass(frozen=True)
class FlowDifference:
    """A flow that is there at one of two moments only, or in another way, with what differs in the edges into it."""

    before: Flow | None
    after: Flow | None
    edges: list[EdgeDifference]

    @property
    def flow(self) -> Flow:
        """The flow as it was last."""
        found = self.after or self.before
        assert found is not None
        return found


def find_differences(
    before: Mapping[int, Flow],
    edges_before: Iterable[Edge],
    after: Mapping[int, Flow],
    edges_after: Iterable[Edge],
    order: Collection[int],
) -> list[FlowDifference]:
    """Return what differs between two graphs, given by flow id, in an order of the flows that has all of them."""
    edges = _edge_differences(edges_before, edges_after)
    found = []
    for flow_id in order:
        one, other, inputs = before.get(flow_id), after.get(flow_id), edges.get(flow_id, [])
        if inputs or one is None or other is None or _shown(one) != _shown(other):
            found.append(FlowDifference(one, other, inputs))
    return found


def _shown(flow: Flow) -> tuple[object, ...]:
    """Return what counts as a change of a flow: another run with the same outcome and content is none."""
    return (
        flow.instance_name,
        flow.fingerprint,
        flow.right_fingerprint,
        flow.version,
        flow.version_id,
        flow.is_fresh,
        flow.word,
    )


def _edge_differences(before: Iterable[Edge], after: Iterable[Edge]) -> dict[int, list[EdgeDifference]]:
    """Return, by downstream flow, the edges that differ, ordered by upstream and role."""
    known = {(edge.downstream_id, edge.upstream_id, edge.role): edge for edge in before}
    now = {(edge.downstream_id, edge.upstream_id, edge.role): edge for edge in after}
    found: dict[int, list[EdgeDifference]] = {}
    for key in sorted(known.keys() | now.keys()):
        one, other = known.get(key), now.get(key)
        if one is None or other is None or _consumed(one) != _consumed(other):
            found.setdefault(key[0], []).append(EdgeDifference(one, other))
    return found


def _consumed(edge: Edge) -> tuple[int, int]:
    return edge.kind, edge.consumed_version
