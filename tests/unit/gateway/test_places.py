"""Places for calls: never more than there may be of one caller or of all, and each is free again after its call."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.places import Places, Room
from servicekit.errors import ResourceExhaustedError

_CALLERS = ("ada", "bob", "eve")
_MOST, _MOST_OF_ONE = 4, 2


@given(st.lists(st.tuples(st.sampled_from(_CALLERS), st.booleans()), max_size=40))
def test_places_are_those_of_a_plain_count(steps: list[tuple[str, bool]]) -> None:
    places = Places("calls", Room(_MOST, _MOST_OF_ONE))
    held: dict[str, list[contextlib.ExitStack]] = {caller: [] for caller in _CALLERS}
    for caller, is_call in steps:
        if not is_call:
            if held[caller]:
                held[caller].pop().close()
            continue
        taken = contextlib.ExitStack()
        own, total = len(held[caller]), sum(map(len, held.values()))
        if own < _MOST_OF_ONE and total < _MOST:
            taken.enter_context(places.take(caller))
            held[caller].append(taken)
        else:
            with pytest.raises(ResourceExhaustedError) as refused:
                taken.enter_context(places.take(caller))
            assert refused.value.reason == "TOO_MANY_CALLS"
            assert ("of yours" in refused.value.message) is (own >= _MOST_OF_ONE)
        assert places.taken == sum(map(len, held.values()))
    for stacks in held.values():
        for stack in stacks:
            stack.close()
    assert places.taken == 0
    assert not places._taken


def test_a_call_takes_bytes_one_piece_after_the_other_and_gives_all_back() -> None:
    places = Places("bytes", Room(10, 6))
    with places.take("ada", 0) as memory, places.take("bob", 4):
        memory.add(4)
        with pytest.raises(ResourceExhaustedError) as refused:
            memory.add(3)
        assert "6 bytes of yours" in refused.value.message
        memory.add(2)
        with pytest.raises(ResourceExhaustedError) as full, places.take("eve", 1):
            pass
        assert full.value.reason == "TOO_MANY_BYTES"
        assert places.taken == 10
    assert not places._taken


def test_a_place_becomes_that_of_another_caller_if_it_may_have_one_more() -> None:
    places = Places("calls", Room(_MOST, _MOST_OF_ONE))
    with contextlib.ExitStack() as calls:
        moved = [calls.enter_context(places.take("address")) for _ in range(2)]
        calls.enter_context(places.take("token"))
        for place in moved:
            place.move("token")
            place.move("token")
        assert places._taken == {"address": 1, "token": 2}
    assert not places._taken
