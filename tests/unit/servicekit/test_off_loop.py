"""Checks in threads, and what becomes of them when nobody waits any more."""

import asyncio
import gc
import threading
from typing import Any

import pytest

from servicekit import off_loop
from servicekit.errors import InvalidArgumentError


async def test_a_refusal_that_nobody_waits_for_is_no_fault() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    begun, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

    def check() -> None:
        begun.set()
        goes_on.wait(10)
        ended.set()
        raise InvalidArgumentError("INVALID_ARGUMENT", "no")

    waiting = asyncio.create_task(off_loop.run(check))
    await asyncio.to_thread(begun.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    del waiting
    goes_on.set()
    assert await off_loop.run(ended.is_set)  # the turn of the next begins when the check has ended
    gc.collect()
    assert complaints == []


async def test_the_caller_gets_the_error_of_the_check() -> None:
    def check() -> None:
        raise InvalidArgumentError("INVALID_ARGUMENT", "no")

    with pytest.raises(InvalidArgumentError):
        await off_loop.run(check)


async def test_only_work_on_many_bytes_goes_to_a_thread() -> None:
    here = threading.get_ident()
    assert await off_loop.run_if_large(off_loop.LARGE_BYTES, threading.get_ident) == here
    assert await off_loop.run_if_large(off_loop.LARGE_BYTES + 1, threading.get_ident) != here
