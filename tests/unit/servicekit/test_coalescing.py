"""Reads that are asked for at the same time share one, and nobody gets what was true before it asked."""

import asyncio
from collections.abc import Mapping

import pytest

from servicekit.coalescing import Coalesced


class Source:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.reads: list[list[str]] = []
        self.answers: list[asyncio.Future[None]] = []

    async def read(self, questions: Mapping[str, str]) -> dict[str, str]:
        self.reads.append(list(questions))
        self.answers.append(asyncio.get_running_loop().create_future())
        await self.answers[-1]
        return {key: f"{key}{len(self.reads)}" for key in questions if key != "nothing"}


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_callers_during_a_read_share_the_next_one() -> None:
    source = Source()
    coalesced = Coalesced(source.read)
    first = asyncio.create_task(coalesced.read("a", ""))
    await _settle()
    others = [asyncio.create_task(coalesced.read(key, "")) for key in ("a", "b", "a", "nothing")]
    await _settle()
    assert source.reads == [["a"]]
    source.answers[0].set_result(None)
    assert await first == "a1"
    await _settle()
    assert source.reads[1:] == [["a", "b", "nothing"]]
    source.answers[1].set_result(None)
    assert await asyncio.gather(*others) == ["a2", "b2", "a2", None]


async def test_a_read_is_never_larger_than_a_message_may_be() -> None:
    source = Source()
    coalesced = Coalesced(source.read)
    tasks = [asyncio.create_task(coalesced.read(str(number), "")) for number in range(200)]
    while not all(task.done() for task in tasks):
        await _settle()
        if not source.answers[-1].done():
            source.answers[-1].set_result(None)
    assert [len(keys) for keys in source.reads] == [1, 64, 64, 64, 7]


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_read_that_fails_is_the_failure_of_one(is_cancelled: bool) -> None:
    source = Source()
    coalesced = Coalesced(source.read)
    before, first, second = (asyncio.create_task(coalesced.read(key, "")) for key in ("x", "a", "b"))
    await _settle()
    source.answers[0].set_result(None)
    assert await before == "x1"
    await _settle()
    if is_cancelled:
        first.cancel()
    else:
        source.answers[1].set_exception(ConnectionError())
    with pytest.raises(asyncio.CancelledError if is_cancelled else ConnectionError):
        await first
    assert await second is None  # it reads for itself
    assert source.reads[1:] == [["a", "b"]]
