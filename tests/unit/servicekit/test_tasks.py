"""What is asked to end, ends, also when the first request is lost."""

import asyncio

from servicekit.loop import Loop
from servicekit.tasks import end


async def test_a_task_that_loses_a_cancellation_is_asked_again() -> None:
    requests = 0

    async def stubborn() -> None:
        nonlocal requests
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                requests += 1
                if requests > 1:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    assert await end({task}, 10) == set()
    assert (task.cancelled(), requests) == (True, 2)


async def test_tasks_that_never_end_are_returned() -> None:
    is_over = asyncio.Event()

    async def immortal() -> None:
        while not is_over.is_set():
            try:
                await is_over.wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(immortal())
    await asyncio.sleep(0)
    assert await end({task}, 0.05) == {task}
    is_over.set()
    await task


async def test_a_loop_that_is_woken_as_it_is_cancelled_ends() -> None:
    async def step() -> bool:
        return False

    loop = Loop("test", 3600, step)
    task = asyncio.create_task(loop.run())
    for _ in range(5):
        await asyncio.sleep(0)
    loop.wake()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()
