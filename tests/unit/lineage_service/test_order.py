"""Distances and execution levels over random acyclic graphs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lineage_service.domain.order import adjacency, distances, execution_levels

_pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda pair: pair[0] < pair[1]))


@given(pairs=_pairs, wanted=st.sets(st.integers(0, 9), min_size=1))
def test_every_flow_comes_after_all_its_wanted_upstreams(
    pairs: list[tuple[int, int]], wanted: set[int]
) -> None:
    levels = execution_levels(wanted, adjacency((down, up) for up, down in pairs))
    assert sorted(flow for level in levels for flow in level) == sorted(wanted)
    position = {flow: number for number, level in enumerate(levels) for flow in level}
    downstreams = adjacency(pairs)
    for flow in wanted:
        below = distances([flow], downstreams)
        for other in wanted & below.keys():
            assert position[flow] < position[other]
    for level in levels[1:]:  # no flow waits longer than it must
        for flow in level:
            assert any(flow in distances([other], downstreams) for other in levels[position[flow] - 1])


def test_distances_stop_at_the_depth_asked_for() -> None:
    chain = adjacency([(1, 2), (2, 3), (3, 4), (1, 3)])
    assert distances([1], chain) == {2: 1, 3: 1, 4: 2}
    assert distances([1], chain, max_depth=1) == {2: 1, 3: 1}


def test_a_chain_of_many_flows_is_handled() -> None:
    above = {number + 1: [number] for number in range(50_000)}
    assert len(execution_levels(range(50_001), above)) == 50_001
