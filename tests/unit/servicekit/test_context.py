"""The current request belongs to its own task, for as long as it is served."""

import asyncio
import time

import pytest

from servicekit import context
from servicekit.context import RequestContext


def request(name: str, deadline: float | None = None) -> RequestContext:
    return RequestContext("acme", name, name, context.new_traceparent(), deadline=deadline)


async def test_concurrent_requests_do_not_see_each_other() -> None:
    async def serve(name: str) -> str:
        with context.bind(request(name)):
            await asyncio.sleep(0)
            return context.current().actor

    assert await asyncio.gather(*(serve(str(number)) for number in range(10))) == [str(n) for n in range(10)]
    assert context.current_or_none() is None


def test_there_is_no_current_request_outside_of_one() -> None:
    with pytest.raises(LookupError):
        context.current()


def test_the_time_left_is_never_negative() -> None:
    assert request("a").remaining() is None
    assert request("a", time.monotonic() - 5).remaining() == 0
    assert 50 < (request("a", time.monotonic() + 60).remaining() or 0) <= 60


def test_a_new_trace_is_one() -> None:
    assert context.is_traceparent(context.new_traceparent())
    assert not context.is_traceparent("00-x")
