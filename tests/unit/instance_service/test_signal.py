"""Waiting for what happens to one instance."""

import asyncio

from instance_service.use_cases.dependencies import Signal


async def test_only_listeners_of_an_instance_are_woken() -> None:
    signal = Signal()
    with signal.listening("one") as wait, signal.listening("one") as again, signal.listening("two"):
        signal.notify("one")
        async with asyncio.timeout(5):
            await wait(3600)
            await again(3600)
        (other,) = signal._listeners["two"]
        assert not other.is_set()
    assert not signal._listeners
