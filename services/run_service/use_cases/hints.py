"""Tell streams of this process that there is something new: workers of new flow runs, watchers of a refresh's changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

_T = TypeVar("_T")
_MOST_NAMES = 64  # that a stream has not taken yet


class Hints(Generic[_T]):
    """The streams of this process by what they listen for. A hint may name what is new; many without a name are one."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[_Listener[_T]]] = {}

    def tell(self, topic: str, name: _T | None = None) -> None:
        """Wake all who listen for a topic."""
        for listener in self._listeners.get(topic, ()):
            listener.put(name)

    async def listen(
        self, topic: str, *, at_least_every: float | None = None
    ) -> AsyncGenerator[_T | None, None]:
        """Yield None at once, because there may be something already, and then each hint, and None after a time without one."""
        listener = _Listener[_T]()
        self._listeners.setdefault(topic, set()).add(listener)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(at_least_every):
                        await listener.told.wait()
                yield listener.take()
        finally:
            self._listeners[topic].discard(listener)
            if not self._listeners[topic]:
                del self._listeners[topic]


class _Listener(Generic[_T]):
    """The hints that a stream has not taken yet, oldest first."""

    def __init__(self) -> None:
        self._hints: deque[_T | None] = deque([None])
        self.told = asyncio.Event()
        self.told.set()

    def put(self, name: _T | None) -> None:
        """Add a hint. With too many names, the stream is only told that there is something."""
        if len(self._hints) >= _MOST_NAMES:
            self._hints = deque([None])
        elif name is not None or None not in self._hints:
            self._hints.append(name)
        self.told.set()

    def take(self) -> _T | None:
        """Remove and return the oldest hint."""
        hint = self._hints.popleft() if self._hints else None
        if not self._hints:
            self.told.clear()
        return hint
