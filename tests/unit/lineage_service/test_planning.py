"""Members and places of plans over random acyclic graphs, against their definitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lineage_service.domain.planning import members_of_plan, places_of_plan

_pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda pair: pair[0] < pair[1]))
_flows = st.sets(st.integers(0, 9))


def above(flow: int, pairs: list[tuple[int, int]], *, through: set[int] | None = None) -> set[int]:
    """Return the flows above a flow; with `through`, those that are reached through no other flow of this set."""
    found: set[int] = set()
    for upstream, downstream in pairs:
        if downstream == flow:
            found.add(upstream)
            if through is None or upstream not in through:
                found |= above(upstream, pairs, through=through)
    return found


@given(pairs=_pairs, candidates=_flows, waiting=_flows)
def test_members_are_those_that_wait_and_those_below_one_that_waits(
    pairs: list[tuple[int, int]], candidates: set[int], waiting: set[int]
) -> None:
    wanted = waiting & candidates
    expected = {flow for flow in candidates if flow in wanted or above(flow, pairs) & wanted}
    assert members_of_plan(candidates, waiting, pairs) == expected


@given(pairs=_pairs, members=_flows)
def test_places_have_the_nearest_members_above_and_the_lowest_level(
    pairs: list[tuple[int, int]], members: set[int]
) -> None:
    places = places_of_plan(members, pairs)
    assert places.keys() == members
    for flow, place in places.items():
        assert place.upstream_ids == above(flow, pairs, through=members) & members
        levels = [places[upstream].level + 1 for upstream in place.upstream_ids]
        assert place.level == max(levels, default=0)


def test_a_chain_of_many_flows_is_planned() -> None:
    pairs = [(number, number + 1) for number in range(20_000)]
    assert places_of_plan(range(20_001), pairs)[20_000].level == 20_000
