"""What is lacking is asked for when it has been lacking for a while, then ever more rarely, and never too much at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import servicekit.comparison
from servicekit.comparison import Lacks

GRACE = 60.0


class _World:
    def __init__(self) -> None:
        self.now = 0.0
        self.lacks = Lacks(GRACE, lambda: self.now)

    def at(
        self, seconds: float, lacked: dict[str, int], *, at_once: bool = False, scope: str = "t"
    ) -> list[str]:
        self.now = seconds
        return self.lacks.choose(scope, lacked, at_once=at_once)


def test_missing_resources_are_asked_for_after_doubling_pauses() -> None:
    world = _World()
    asked = [second for second in range(0, 20_000, 10) if world.at(second, {"a": 1})]
    assert asked == [60, 180, 420, 900, 1860, 3780, 7380, 10980, 14580, 18180]


def test_resources_that_arrive_in_the_meantime_are_never_asked_for() -> None:
    """Under a backlog what is lacking is another state each time."""
    world = _World()
    assert not any(world.at(30 * number, {"a": number}) for number in range(100))
    world = _World()
    assert world.at(0, {"a": 1, "b": 1}) == []
    assert world.at(61, {"b": 1}) == ["b"]


def test_an_operator_does_not_wait() -> None:
    world = _World()
    assert world.at(0, {"a": 1}, at_once=True) == ["a"]
    assert world.at(1, {"a": 1}, at_once=True) == ["a"]
    assert world.at(100, {"a": 1}) == [], "it was asked for a moment ago"


def test_at_most_the_limit_is_asked_for_and_the_rest_next_time() -> None:
    world = _World()
    many = {str(number): 1 for number in range(12_000)}
    assert world.at(0, many) == []
    found = [world.at(60 * number, many) for number in range(1, 4)]
    assert [len(each) for each in found] == [5_000] * 3
    assert set().union(*found) == many.keys(), "first those that were never asked for"
    assert len(world.at(400, many, at_once=True)) == 12_000


def test_each_tenant_has_its_own_limit_of_requests() -> None:
    world = _World()
    many = {str(number): 1 for number in range(6_000)}
    for scope in ("one", "two"):
        world.at(0, many, scope=scope)
    assert [len(world.at(60, many, scope=scope)) for scope in ("one", "two")] == [5_000, 5_000]


def _pass(world: _World, seconds: float, keys: Sequence[int], page: int = 1_000) -> list[str]:
    """Compare page by page, as the owner announces them."""
    asked = []
    for start in range(0, len(keys), page):
        asked += world.at(seconds, {f"{key:06}": 1 for key in keys[start : start + page]})
    return asked


def _remembered(world: _World) -> int:
    return len(world.lacks._waiting) + len(world.lacks._asked)


def test_the_list_of_missing_resources_is_bounded() -> None:
    world = _World()
    for number in range(30):
        world.at(number, {f"{number}-{each}": 1 for each in range(5_000)})
    assert _remembered(world) == 100_000


def test_of_more_than_may_be_remembered_some_are_asked_for_at_each_pass() -> None:
    world = _World()
    passes = [_pass(world, 300 * number, range(150_000)) for number in range(3)]
    assert [len(each) for each in passes] == [0, 5_000, 5_000]
    assert not set(passes[1]) & set(passes[2]), "first those that were never asked for"
    assert _remembered(world) == 100_000


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicekit.comparison, "_MOST_REMEMBERED", 1_000)
    monkeypatch.setattr(servicekit.comparison, "_MOST_ASKED", 50)


@pytest.mark.usefixtures("_small")
def test_what_may_not_be_remembered_comes_later() -> None:
    world, asked = _World(), set[str]()
    for number in range(32):
        asked.update(
            _pass(world, 300 * number, [key for key in range(1_500) if f"{key:06}" not in asked], 10)
        )
    assert len(asked) == 1_500, "what was asked for has come"
    assert _remembered(world) <= 1_000


@pytest.mark.usefixtures("_small")
def test_what_arrives_without_being_asked_for_makes_room() -> None:
    world = _World()
    _pass(world, 0, range(1_000), 10)
    passes = [_pass(world, 300 * number, range(1_000, 2_000), 10) for number in range(1, 20)]
    assert any(passes)
    assert _remembered(world) <= 1_000
