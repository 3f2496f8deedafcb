"""Graphs whose edges make circles, which events that come late can make for a while: every walk over them ends."""

from __future__ import annotations

import itertools
from dataclasses import MISSING, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineage_service.domain.causes import (
    MAX_CAUSES,
    TIME_CAUSES,
    Cause,
    Graph,
    explain,
    find_causes,
    nearest_causes,
)
from lineage_service.domain.flows import Edge, Flow
from lineage_service.domain.lateness import count_as_ready, lateness_of
from lineage_service.domain.order import adjacency, distances, execution_levels, reachable
from lineage_service.domain.past import Base, stale_flows
from lineage_service.domain.planning import members_of_plan, places_of_plan

FLOWS = range(12)
_OF_TYPE = {"int": 0, "str": "", "bool": False, "datetime | None": None}
_ids = st.sets(st.sampled_from(FLOWS))
_pairs = st.lists(st.tuples(st.sampled_from(FLOWS), st.sampled_from(FLOWS)), max_size=30)


def flow(number: int, **values: Any) -> Flow:
    """Return a flow that has succeeded once; it is not fresh, and has no cause of its own unless `values` gives one."""
    needed = {each.name: _OF_TYPE[str(each.type)] for each in fields(Flow) if each.default is MISSING}
    state = {
        "is_defined": True,
        "instance_name": f"flow {number}",
        "instance_id": str(number),
        "version": 1,
        "run_number": 1,
        "ended_run_number": 1,
        "full_run_number": 1,
        "outcome": "succeeded",
        "last_data_date": "2024-01-01",
    }
    return Flow(**{**needed, **state, "flow_id": number, **values})


def invalidated(number: int) -> Flow:
    return flow(number, invalidated_run_number=1)


def late(number: int, **values: Any) -> Flow:
    return flow(number, expected_data_date="2024-01-02", **values)


def edges(pairs: list[tuple[int, int]]) -> list[Edge]:
    """Return edges with the current version consumed."""
    return [
        Edge(upstream, downstream, f"role {place}", 1, is_connected=True, consumed_version=1)
        for place, (upstream, downstream) in enumerate(pairs)
    ]


def circle(flows: list[Flow]) -> Graph:
    """Return a graph in which each flow reads the one before, and the first the last."""
    numbers = [each.flow_id for each in flows]
    return Graph(flows, edges(list(zip(numbers, [*numbers[1:], numbers[0]], strict=True))))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Return a graph of any shape, whose flows have several causes of their own, one or none."""
    fresh, invalid, overdue, blocking, partial = (draw(_ids) for _ in range(5))
    flows = [
        flow(
            number,
            is_fresh=number in fresh,
            invalidated_run_number=int(number in invalid),
            expected_data_date="2024-01-02" if number in overdue else "",
            blocks_readers=number in blocking,
            partial_run_number=2 * (number in partial),
        )
        for number in FLOWS
    ]
    return Graph(flows, edges(draw(_pairs)))


def roots(graph: Graph, start: Flow) -> list[Cause]:
    return [found.cause for found in find_causes(graph, start)]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("asked_first", [0, 1, 2])
def test_each_flow_of_a_circle_has_the_causes_of_all_of_it(size: int, asked_first: int) -> None:
    flows = [invalidated(0), *map(flow, range(1, size))]
    graph = circle(flows)
    asked = [*flows[asked_first:], *flows[:asked_first]]
    causes = nearest_causes(graph, asked)
    assert [[each.origin for each in causes[number]] for number in range(size)] == [[flows[0]]] * size
    assert count_as_ready(graph, asked) == set()
    assert lateness_of(graph) == (frozenset(), frozenset())
    assert all(list(explain(graph, each)) for each in flows)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("blocks", [False, True])
def test_a_circle_with_late_data_only_counts_as_ready_unless_that_blocks(size: int, *, blocks: bool) -> None:
    flows = [late(0, blocks_readers=blocks), *map(flow, range(1, size))]
    graph = circle(flows)
    assert count_as_ready(graph, flows) == (set() if blocks else set(range(size)))
    assert lateness_of(graph) == (frozenset(range(size)), frozenset({0}))


@given(graph=graphs(), starts=st.lists(st.sampled_from(FLOWS)))
def test_the_nearest_causes_are_the_first_of_all_causes_in_graphs_of_any_shape(
    graph: Graph, starts: list[int]
) -> None:
    causes = nearest_causes(graph, [graph.flows[number] for number in starts])
    assert causes == {number: roots(graph, graph.flows[number])[:MAX_CAUSES] for number in starts}


@given(graph=graphs())
def test_late_data_is_judged_by_all_root_causes_in_graphs_of_any_shape(graph: Graph) -> None:
    stale = {number: roots(graph, each) for number, each in graph.flows.items() if not each.is_fresh}
    late_only = {
        number for number, causes in stale.items() if all(cause.kind in TIME_CAUSES for cause in causes)
    }
    blocking = {each.flow_id for each in graph.flows.values() if each.is_late and each.blocks_readers}
    assert lateness_of(graph).late_only == late_only
    ready = {number for number in late_only if blocking.isdisjoint(_origins(stale[number]))}
    assert count_as_ready(graph, graph.flows.values()) == ready


def _origins(causes: list[Cause]) -> set[int]:
    return {cause.origin.flow_id for cause in causes}


@given(graph=graphs())
def test_explanations_end_in_graphs_of_any_shape(graph: Graph) -> None:
    for each in graph.flows.values():
        for found in explain(graph, each):
            assert found.path[-1] is each
            assert len(found.path) <= len(FLOWS) + 1


@given(pairs=_pairs, wanted=_ids)
def test_distances_lead_to_what_is_reachable(pairs: list[tuple[int, int]], wanted: set[int]) -> None:
    neighbours = adjacency(pairs)
    found = reachable(wanted, neighbours)
    assert distances(wanted, neighbours).keys() | wanted == found
    assert all(below in found for above, below in pairs if above in found)


@given(pairs=_pairs, wanted=_ids)
def test_each_flow_has_one_level_and_comes_after_those_above_unless_it_is_in_or_below_a_circle(
    pairs: list[tuple[int, int]], wanted: set[int]
) -> None:
    downstreams = adjacency(pairs)
    below = {number: reachable(downstreams.get(number, ()), downstreams) for number in FLOWS}
    in_circles = {number for number in FLOWS if number in below[number]}
    tangled = reachable(in_circles, downstreams)
    level = {
        number: place
        for place, numbers in enumerate(execution_levels(wanted, adjacency((down, up) for up, down in pairs)))
        for number in numbers
    }
    places = places_of_plan(wanted, pairs)
    assert level.keys() == places.keys() == wanted
    for upstream, downstream in itertools.permutations(wanted, 2):
        if downstream in below[upstream] and downstream not in tangled:
            assert level[upstream] < level[downstream]
            assert places[upstream].level < places[downstream].level
    for place in places.values():
        assert all(places[upstream].level < place.level for upstream in place.upstream_ids)


@given(pairs=_pairs, candidates=_ids, waiting=_ids)
def test_a_plan_has_what_waits_and_what_is_below_it(
    pairs: list[tuple[int, int]], candidates: set[int], waiting: set[int]
) -> None:
    below = reachable(waiting & candidates, adjacency(pairs))
    assert members_of_plan(candidates, waiting, pairs) == below & candidates


@given(pairs=_pairs, causes=_ids, behind=_ids)
def test_freshness_in_the_past_ends_in_circles(
    pairs: list[tuple[int, int]], causes: set[int], behind: set[int]
) -> None:
    base = Base()
    base.versions = dict.fromkeys(FLOWS, 2)
    base.with_own_cause = causes
    for place, (upstream, downstream) in enumerate(pairs):
        base.upstream_ids.append(upstream)
        base.downstream_ids.append(downstream)
        base.compared_versions.append(1 if place in behind else 2)
    moved = {downstream for place, (_, downstream) in enumerate(pairs) if place in behind}
    assert stale_flows(base) == reachable(causes | moved, adjacency(pairs))
