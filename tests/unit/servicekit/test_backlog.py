"""What waits to be sent is in order within each key, bounded, and the newest of a key goes last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from servicekit.backlog import Backlog, Waiting

_KEYS = st.sampled_from("abcd")
_STEPS = st.lists(st.one_of(_KEYS, st.integers(min_value=1, max_value=4)), max_size=40)


class _Model:
    """The rule, by brute force: a list of what waits, oldest first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.waiting: list[tuple[str, int]] = []
        self.victims: list[tuple[str, int]] = []

    def make_room(self, key: str) -> None:
        """Find what may be displaced for an item of this key: one of several candidates of the same rank."""
        if len(self.waiting) == self.capacity:
            several = [k for k, _ in self.waiting if [each for each, _ in self.waiting].count(k) > 1]
            keys = {k for k, _ in self.waiting}
            candidates = {key} if key in keys else set(several) or keys
            assert candidates
            self.victims = [next(each for each in self.waiting if each[0] == k) for k in sorted(candidates)]
        else:
            self.victims = []

    def remove(self, gone: set[tuple[str, int]]) -> None:
        self.waiting = [each for each in self.waiting if each not in gone]


def _all(backlog: Backlog[int]) -> set[tuple[str, int]]:
    return {(str(each.key), each.item) for each in backlog.first(1_000)}


@given(capacity=st.integers(min_value=1, max_value=6), steps=_STEPS)
def test_a_backlog_drops_what_the_rule_says_and_keeps_the_order(
    capacity: int, steps: list[str | int]
) -> None:
    backlog, model = Backlog[int](capacity), _Model(capacity)
    sent: list[tuple[str, int]] = []
    for number, step in enumerate(steps):
        if isinstance(step, str):
            model.make_room(step)
            is_full = bool(model.victims)
            assert backlog.put(step, number) == is_full
            model.waiting.append((step, number))
            gone = set(model.waiting) - _all(backlog)
            assert len(gone) == int(is_full)
            assert gone <= set(model.victims)
            model.remove(gone)
        else:
            batch = backlog.first(step)
            assert len(batch) == min(step, len(model.waiting))
            backlog.remove(batch)
            taken = [(str(each.key), each.item) for each in batch]
            sent += taken
            model.remove(set(taken))
        assert _all(backlog) == set(model.waiting)
        assert len(backlog) == len(model.waiting)
    for key in "abcd":
        numbers = [number for each, number in sent if each == key]
        assert numbers == sorted(set(numbers))


@given(
    waiting=st.lists(st.tuples(st.sampled_from("xyz"), _KEYS), max_size=60),
    most=st.integers(min_value=1, max_value=8),
)
def test_owners_take_turns(waiting: list[tuple[str, str]], most: int) -> None:
    backlog = Backlog[int](1_000)
    for number, (owner, key) in enumerate(waiting):
        backlog.put((owner, key), number, owner)
    left = [owner for owner, _ in waiting]
    behind = dict.fromkeys(left, 0)  # by owner, the items of others that were sent since its last one
    while batch := backlog.first(most):
        assert len(batch) == min(most, len(left))
        for sent in batch:
            left.remove(sent.owner)
            behind = {owner: count + 1 for owner, count in behind.items()}
            behind[sent.owner] = 0
            assert all(count < 2 * len(behind) for owner, count in behind.items() if owner in left)
        backlog.remove(batch)
    assert not left
    assert not len(backlog)


def test_owners_whose_items_are_postponed_let_all_others_pass() -> None:
    backlog = Backlog[int](100)
    for number in range(10):
        backlog.put(f"k{number}", number, f"o{number}")
    failing = backlog.first(4)
    backlog.postpone(each.key for each in failing)
    assert [each.item for each in backlog.first(10)] == [*range(4, 10), *range(4)]


def test_what_was_displaced_while_it_was_sent_is_not_missed() -> None:
    backlog = Backlog[int](2)
    backlog.put("a", 1)
    backlog.put("b", 2)
    under_way = backlog.first(10)
    assert backlog.put("a", 3)
    backlog.remove(under_way)
    assert backlog.first(10) == [Waiting("a", 3, 3)]


def test_a_busy_key_does_not_keep_the_others_waiting() -> None:
    backlog = Backlog[int](10)
    for number in range(4):
        backlog.put("busy", number)
    backlog.put("quiet", 9)
    backlog.remove(backlog.first(2))
    assert [each.key for each in backlog.first(1)] == ["quiet"]
