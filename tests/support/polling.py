"""Waiting for what happens elsewhere: by looking again, with a deadline, never by sleeping blindly."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_Value = TypeVar("_Value")
_INTERVAL = 0.02


async def eventually(
    predicate: Callable[[], _Value | Awaitable[_Value]], deadline: float = 20.0, message: str = ""
) -> _Value:
    """Return the first true value of `predicate`, plain or async; fail after `deadline` seconds."""
    limit = time.monotonic() + deadline
    while True:
        value = predicate()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > limit:
            raise AssertionError(message or f"not within {deadline} s; last value {value!r}")
        await asyncio.sleep(_INTERVAL)
