"""Tell streams of this process that there is something new: workers of new flow runs, watchers of a refresh's changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator


class Hints:
    """The streams of this process by what they listen for; many hints that a stream has not taken yet are one."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Event]] = {}

    def tell(self, topic: str) -> None:
        """Wake all who listen for a topic."""
        for hint in self._listeners.get(topic, ()):
            hint.set()

    async def listen(self, topic: str, *, at_least_every: float | None = None) -> AsyncGenerator[None, None]:
        """Yield at once, because there may be something already, and then after each hint, or after a time without one."""
        hint = asyncio.Event()
        hint.set()
        self._listeners.setdefault(topic, set()).add(hint)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(at_least_every):
                        await hint.wait()
                hint.clear()
                yield
        finally:
            self._listeners[topic].discard(hint)
            if not self._listeners[topic]:
                del self._listeners[topic]
