"""Places are given in turns of the tenants, and none gets lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from servicekit.errors import UnavailableError
from servicekit.shares import Shares, most_of_one


@pytest.mark.parametrize(("places", "most"), [(1, 1), (2, 1), (4, 3), (8, 6)])
def test_one_tenant_holds_three_quarters_of_the_places(places: int, most: int) -> None:
    assert most_of_one(places) == most


async def test_a_tenant_that_holds_all_that_it_may_leaves_places_for_another() -> None:
    shares, gate, held = Shares(4, 3), asyncio.Event(), Counter[str]()

    async def hold(tenant_id: str) -> None:
        async with shares.take(tenant_id, 5):
            held[tenant_id] += 1
            await gate.wait()

    holding = [asyncio.create_task(hold("acme")) for _ in range(100)]
    await asyncio.sleep(0)
    async with shares.take("other", 0.1):
        assert held == {"acme": 3}
    gate.set()
    await asyncio.gather(*holding)
    assert held == {"acme": 100}


async def test_the_next_place_is_for_the_tenant_that_had_none() -> None:
    shares, order = Shares(1, 1), list[str]()

    async def hold(tenant_id: str) -> None:
        async with shares.take(tenant_id, 5):
            order.append(tenant_id)
            await asyncio.sleep(0)

    await asyncio.gather(*(hold(tenant_id) for tenant_id in ["acme"] * 50 + ["other"] * 3))
    assert order[:7] == ["acme", "acme", "other", "acme", "other", "acme", "other"]


async def test_a_call_that_waits_too_long_is_asked_to_retry() -> None:
    shares = Shares(1, 1)
    async with shares.take("acme", 1):
        with pytest.raises(UnavailableError, match="retry"):
            async with shares.take("acme", 0.01):
                raise AssertionError("there is no place")
    async with shares.take("acme", 0.01):
        pass


@pytest.mark.parametrize("seed", range(20))
async def test_callers_that_give_up_lose_no_place(seed: int) -> None:
    chance = random.Random(seed)
    shares, held, most_held = Shares(4, 3), Counter[str](), Counter[str]()

    async def hold(tenant_id: str, pause: float) -> None:
        async with shares.take(tenant_id, 5):
            held[tenant_id] += 1
            most_held[tenant_id] = max(most_held[tenant_id], held[tenant_id])
            assert held.total() <= 4
            try:
                await asyncio.sleep(pause)  # the place is held for this time
            finally:
                held[tenant_id] -= 1

    tasks = [asyncio.create_task(hold(chance.choice("abc"), chance.random() / 200)) for _ in range(200)]
    while any(not task.done() for task in tasks):
        chance.choice(tasks).cancel()
        await asyncio.sleep(chance.random() / 500)  # so that callers give up at different moments
    assert all(task.cancelled() or task.exception() is None for task in tasks)
    assert max(most_held.values()) <= 3
    for _ in range(3):
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            for tenant_id in "aaab":
                group.create_task(hold(tenant_id, 0.001))
