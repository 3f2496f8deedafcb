"""Run the asynchronous client for a program without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any, Generic, TypeVar

_Value = TypeVar("_Value")
_Target = TypeVar("_Target")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="optaic-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _Value]) -> _Value:
        """Run a coroutine there and return its result; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[_Value]) -> Generator[_Value, None, None]:
        """Yield what an async iterator yields there."""

        async def following() -> _Value:
            return await anext(items)

        async def end() -> None:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

        try:
            while True:
                try:
                    item = self.run(following())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self.run(end())

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Plain(Generic[_Target]):
    """An object of the asynchronous client with plain methods, each of which runs in the loop."""

    def __init__(self, loop: Loop, target: _Target) -> None:
        self._loop = loop
        self._target = target

    def __repr__(self) -> str:
        return repr(self._target)
