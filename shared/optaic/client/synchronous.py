"""The same client for programs without an event loop: a thin facade over one loop in a thread; it has no logic."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from optaic.client.asynchronous import AsyncClient
from optaic.client.runs import RunHandle

_Value = TypeVar("_Value")
_OWN_PACKAGE = __package__ or ""


class _Loop:
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

    def iterate(self, items: AsyncIterator[_Value]) -> Iterator[_Value]:
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


class _Facade:
    """Any object of the asynchronous client, with plain methods."""

    def __init__(self, loop: _Loop, target: Any) -> None:
        self._loop = loop
        self._target = target

    def __repr__(self) -> str:
        return repr(self._target)

    def __dir__(self) -> list[str]:
        return dir(self._target)

    def __getattr__(self, name: str) -> Any:
        return _plain(self._loop, getattr(self._target, name))


def _plain(loop: _Loop, value: Any) -> Any:
    """Return what a program without a loop gets for a value of the asynchronous client."""
    if inspect.isroutine(value):

        def call(*arguments: Any, **options: Any) -> Any:
            result = value(*(_given(each) for each in arguments), **options)
            if inspect.isawaitable(result):
                result = loop.run(result)  # type: ignore[arg-type]  # our methods return coroutines
            return loop.iterate(result) if isinstance(result, AsyncIterator) else _plain(loop, result)

        call.__name__, call.__doc__ = value.__name__, value.__doc__
        return call
    if isinstance(value, RunHandle) or type(value).__module__.startswith(_OWN_PACKAGE):
        return _Facade(loop, value)
    return value


def _given(value: Any) -> Any:
    return value._target if isinstance(value, _Facade) else value  # noqa: SLF001 - the facade's own


class Client(_Facade):
    """All services of one control plane: `with Client.connect() as client: ...`; see AsyncClient."""

    @classmethod
    def connect(cls, **options: Any) -> Self:
        """Return a client; options as of `AsyncClient.connect`."""
        loop = _Loop()

        async def make() -> AsyncClient:
            return AsyncClient.connect(**options)

        try:
            return cls(loop, loop.run(make()))
        except BaseException:
            loop.stop()
            raise

    def close(self) -> None:
        """Close all connections, and end the thread."""
        self._loop.run(self._target.close())
        self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
