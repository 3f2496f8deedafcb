"""A level-triggered loop looks until nothing is left, and outlives its faults."""

import asyncio

import pytest

from servicekit import loop as loop_module
from servicekit.loop import Loop
from support.polling import eventually


class Work:
    """So much is left to do."""

    def __init__(self, left: int = 0) -> None:
        self.left = left
        self.looks = 0
        self.faults = 0

    async def step(self) -> bool:
        """Do one piece."""
        self.looks += 1
        if self.faults:
            self.faults -= 1
            raise ConnectionError("away")
        self.left = max(0, self.left - 1)
        return self.left > 0


async def test_it_works_until_nothing_is_left_and_then_waits_to_be_woken() -> None:
    work = Work(left=3)
    loop = Loop("test", 3600, work.step)
    task = asyncio.create_task(loop.run())
    await eventually(lambda: work.looks == 3)
    work.left = 2
    for _ in range(10):
        loop.wake()
    await eventually(lambda: work.left == 0)
    assert work.looks <= 6  # many calls cost one look, or two where it was looking already
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_looks_again_after_the_interval_without_being_woken() -> None:
    work = Work()
    task = asyncio.create_task(Loop("test", 0.01, work.step).run())
    await eventually(lambda: work.looks > 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_wake_during_the_work_is_not_lost() -> None:
    looks = 0

    async def step() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            loop.wake()
        return False

    loop = Loop("test", 3600, step)
    task = asyncio.create_task(loop.run())
    await eventually(lambda: looks == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_loop_continues_after_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "_FIRST_BACKOFF", 0.001)
    work = Work(left=1)
    work.faults = 5
    task = asyncio.create_task(Loop("test", 3600, work.step).run())
    await eventually(lambda: work.looks == 6)
    assert work.left == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
