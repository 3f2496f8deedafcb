"""Waiting for what happens elsewhere: by looking again, with a deadline, never by sleeping blindly."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

_Value = TypeVar("_Value")
# Of the time waited, so much may pass between two looks, for a look costs whoever is asked: nobody waits longer by more.
_SHARE = 0.05
_SHORTEST, _LONGEST = 0.02, 0.2
# Seconds for what takes a few, and takes long on a busy machine: a limit against hanging, no test's subject.
PATIENCE = 300.0


@overload
async def eventually(
    predicate: Callable[[], Coroutine[Any, Any, _Value]], deadline: float = ..., message: str = ...
) -> _Value: ...
@overload
async def eventually(
    predicate: Callable[[], _Value], deadline: float = ..., message: str = ...
) -> _Value: ...
async def eventually(predicate: Callable[[], Any], deadline: float = 60.0, message: str = "") -> Any:
    """Return the first true value of `predicate`, plain or async; fail after `deadline` seconds."""
    began = time.monotonic()
    while True:
        value = predicate()
        if isinstance(value, Coroutine):
            value = await value
        if value:
            return value
        waited = time.monotonic() - began
        if waited > deadline:
            raise AssertionError(message or f"not within {deadline} s; last value {value!r}")
        await asyncio.sleep(min(max(waited * _SHARE, _SHORTEST), _LONGEST))
