"""Read what depends on what, and why something is out of date. Generated from optaic.client.lineage by `make client`; do not edit."""

from __future__ import annotations

from collections.abc import Sequence

from optaic.client import lineage as asynchronous
from optaic.client.moments import MomentLike
from optaic.client.references import FlowLike
from optaic.client.synchronous.loop import Plain
from optaic.common.v1.flow_pb2 import FlowRef
from optaic.lineage.v1 import lineage_pb2
from optaic.lineage.v1 import lineage_service_pb2 as api
from optaic.rules.pages import LONG_LARGEST_SIZE


class Lineage(Plain[asynchronous.Lineage]):
    """The flow-to-flow graph. A flow is given as FlowRef, or as instance (or id) and, where needed, `flow_kind`."""

    def state(
        self, flow: FlowLike, flow_kind: str | int | None = None, *, as_of: MomentLike | None = None
    ) -> lineage_pb2.FlowState:
        """Return everything known about a flow, as it is or `as_of` a lineage revision, a time, or what a run saw."""
        return self._loop.run(self._target.state(flow, flow_kind, as_of=as_of))

    def check(self, flow: FlowLike, flow_kind: str | int | None = None) -> api.CheckUpstreamFreshnessResponse:
        """Return whether a run would be admitted now (`all_ready`), what is `blocking`, and what it would read."""
        return self._loop.run(self._target.check(flow, flow_kind))

    def explain(self, flow: FlowLike, flow_kind: str | int | None = None) -> api.ExplainStalenessResponse:
        """Return why a flow is not fresh: every cause with one shortest path through each affected upstream."""
        return self._loop.run(self._target.explain(flow, flow_kind))

    def upstreams(
        self, flow: FlowLike, flow_kind: str | int | None = None, *, max_depth: int = 0
    ) -> list[lineage_pb2.FlowState]:
        """Return the transitive upstreams, nearest first."""
        return self._loop.run(self._target.upstreams(flow, flow_kind, max_depth=max_depth))

    def downstreams(
        self, flow: FlowLike, flow_kind: str | int | None = None, *, max_depth: int = 0
    ) -> list[lineage_pb2.FlowState]:
        """Return the transitive downstreams, nearest first."""
        return self._loop.run(self._target.downstreams(flow, flow_kind, max_depth=max_depth))

    def graph(
        self,
        flow: FlowLike,
        flow_kind: str | int | None = None,
        *,
        upstream_depth: int = 0,
        downstream_depth: int = 0,
        as_of: MomentLike | None = None,
    ) -> api.GetLineageGraphResponse:
        """Return the flows around one flow, and the edges among them, as they are or `as_of` an earlier moment."""
        return self._loop.run(
            self._target.graph(
                flow, flow_kind, upstream_depth=upstream_depth, downstream_depth=downstream_depth, as_of=as_of
            )
        )

    def diff(
        self,
        flow: FlowLike,
        before: MomentLike,
        after: MomentLike | None = None,
        flow_kind: str | int | None = None,
        *,
        upstream_depth: int = 0,
        downstream_depth: int = 0,
    ) -> api.DiffLineageResponse:
        """Return what differs around a flow between two moments, by default until now; the answer has all pages."""
        return self._loop.run(
            self._target.diff(
                flow,
                before,
                after,
                flow_kind,
                upstream_depth=upstream_depth,
                downstream_depth=downstream_depth,
            )
        )

    def order(self, *flows: FlowLike, flow_kind: str | int | None = None) -> Sequence[Sequence[FlowRef]]:
        """Return the flows level by level: each after all of its upstreams; those of a level may run at the same time."""
        return self._loop.run(self._target.order(*flows, flow_kind=flow_kind))

    def preview_impact(
        self, *flows: FlowLike, flow_kind: str | int | None = None, most: int = LONG_LARGEST_SIZE
    ) -> api.PreviewImpactResponse:
        """Return which flows would become stale if the output of the given flows were no longer right, and how many.

        The answer lists at most the `most` nearest, 10,000 at most; it counts all. For a change of an instance, give the
        `moved_flows` of its rehearsal.
        """
        return self._loop.run(self._target.preview_impact(*flows, flow_kind=flow_kind, most=most))

    def accept_staleness(
        self, flow: FlowLike, reason: str, flow_kind: str | int | None = None
    ) -> lineage_pb2.FlowState:
        """Declare a stale output right for its present configuration and inputs, until a run completes."""
        return self._loop.run(self._target.accept_staleness(flow, reason, flow_kind))

    def revoke_accepted_staleness(
        self, flow: FlowLike, reason: str, flow_kind: str | int | None = None
    ) -> lineage_pb2.FlowState:
        """Take an acceptance back."""
        return self._loop.run(self._target.revoke_accepted_staleness(flow, reason, flow_kind))

    def invalidate(
        self, flow: FlowLike, reason: str, flow_kind: str | int | None = None
    ) -> lineage_pb2.FlowState:
        """Declare a flow's output invalid until it runs again."""
        return self._loop.run(self._target.invalidate(flow, reason, flow_kind))

    def recompute(self) -> tuple[int, list[FlowRef]]:
        """Compare the stored freshness of all flows with the facts and repair it; return how many flows, and which were wrong."""
        return self._loop.run(self._target.recompute())
