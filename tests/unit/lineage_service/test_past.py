"""Freshness as of a revision over random acyclic graphs, against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lineage_service.domain.past import Base, stale_flows

FLOWS = range(8)
_edges = st.lists(
    st.tuples(st.sampled_from(FLOWS), st.sampled_from(FLOWS), st.integers(1, 2)).filter(
        lambda edge: edge[0] < edge[1]
    )
)


@given(
    edges=_edges,
    versions=st.lists(st.integers(1, 2), min_size=8, max_size=8),
    causes=st.sets(st.sampled_from(FLOWS)),
)
def test_a_flow_is_fresh_without_own_cause_below_fresh_flows_of_the_versions_compared(
    edges: list[tuple[int, int, int]], versions: list[int], causes: set[int]
) -> None:
    def is_fresh(flow: int) -> bool:
        return flow not in causes and all(
            compared == versions[upstream] and is_fresh(upstream)
            for upstream, downstream, compared in edges
            if downstream == flow
        )

    base = Base()
    base.versions = dict(zip(FLOWS, versions, strict=True))
    base.with_own_cause = causes
    for upstream, downstream, compared in edges:
        base.upstream_ids.append(upstream)
        base.downstream_ids.append(downstream)
        base.compared_versions.append(compared)
    assert stale_flows(base) == {flow for flow in FLOWS if not is_fresh(flow)}
