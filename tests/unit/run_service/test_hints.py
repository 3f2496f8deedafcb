"""Hints that a stream has not taken yet."""

from __future__ import annotations

from contextlib import aclosing

from run_service.use_cases.hints import Hints


async def test_a_stream_begins_with_a_hint_without_a_name() -> None:
    async with aclosing(Hints[str]().listen("acme")) as hints:
        assert await anext(hints) is None


async def test_names_come_in_their_order_and_hints_without_a_name_are_one() -> None:
    hints = Hints[str]()
    async with aclosing(hints.listen("acme")) as ours:
        await anext(ours)
        for name in ("a", None, "b", None, "c"):
            hints.tell("acme", name)
        hints.tell("rival", "d")
        assert [await anext(ours) for _ in range(4)] == ["a", None, "b", "c"]


async def test_a_stream_that_takes_no_names_is_told_only_that_there_are_some() -> None:
    hints = Hints[str]()
    async with aclosing(hints.listen("acme")) as ours:
        await anext(ours)
        for number in range(65):
            hints.tell("acme", str(number))
        assert await anext(ours) is None
        hints.tell("acme", "the next")
        assert await anext(ours) == "the next"


async def test_a_time_without_a_hint_is_a_hint_without_a_name() -> None:
    hints = Hints[str]()
    async with aclosing(hints.listen("acme", at_least_every=0.01)) as ours:
        assert [await anext(ours) for _ in range(3)] == [None] * 3
        hints.tell("acme", "a")
        assert "a" in [await anext(ours) for _ in range(2)]
