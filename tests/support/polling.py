"""Waiting for what happens elsewhere: by looking again, with a deadline, never by sleeping blindly."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

_Value = TypeVar("_Value")
_INTERVAL = 0.02


@overload
async def eventually(
    predicate: Callable[[], Coroutine[Any, Any, _Value]], deadline: float = ..., message: str = ...
) -> _Value: ...
@overload
async def eventually(
    predicate: Callable[[], _Value], deadline: float = ..., message: str = ...
) -> _Value: ...
async def eventually(predicate: Callable[[], Any], deadline: float = 20.0, message: str = "") -> Any:
    """Return the first true value of `predicate`, plain or async; fail after `deadline` seconds."""
    limit = time.monotonic() + deadline
    while True:
        value = predicate()
        if isinstance(value, Coroutine):
            value = await value
        if value:
            return value
        if time.monotonic() > limit:
            raise AssertionError(message or f"not within {deadline} s; last value {value!r}")
        await asyncio.sleep(_INTERVAL)
