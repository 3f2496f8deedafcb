"""Waiting for what happens to one instance."""

import asyncio

from instance_service.use_cases.dependencies import Signal


async def test_who_listens_to_an_instance_is_woken_and_nobody_else() -> None:
    signal = Signal()
    with signal.listening("one") as wait, signal.listening("one") as again, signal.listening("two"):
        signal.notify("one")
        async with asyncio.timeout(5):
            await wait(3600)
            await again(3600)
        (other,) = signal._listeners["two"]
        assert not other.is_set()
    assert not signal._listeners
