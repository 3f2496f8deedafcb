"""Do heavy checks in threads, so that the event loop answers others meanwhile; each tenant has one check at a time.

Each check must end by itself, because nothing ends a thread: it counts its steps. Python switches between threads every
few milliseconds, so a check slows the loop and never stops it.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from servicekit import context

LARGE_BYTES = 8 * 1024  # of a message; work on a smaller one takes less than the way to a thread
_THREADS = 2
_PART = 1_000  # items
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="checks")
_turns: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, weakref.WeakValueDictionary[str, asyncio.Lock]
] = weakref.WeakKeyDictionary()


async def run(
    function: Callable[_Parameters, _Result], *arguments: _Parameters.args, **options: _Parameters.kwargs
) -> _Result:
    """Call a function in a thread when it is the turn of the caller's tenant; the deadline is that of the request."""
    request = context.current_or_none()
    tenant_id = request.tenant_id if request else ""
    loop = asyncio.get_running_loop()
    turns = _turns.setdefault(loop, weakref.WeakValueDictionary())
    turn = turns.get(tenant_id)
    if turn is None:
        turns[tenant_id] = turn = asyncio.Lock()
    await turn.acquire()
    state = contextvars.copy_context()
    future = loop.run_in_executor(_threads, lambda: state.run(function, *arguments, **options))

    def end(done: asyncio.Future[_Result]) -> None:
        """End the tenant's turn, which lasts as long as the thread is at work, whoever still waits for it."""
        turn.release()
        if not done.cancelled():
            done.exception()  # nobody may be left to hear of it

    future.add_done_callback(end)
    return await asyncio.shield(future)


async def run_if_large(
    size: int,
    function: Callable[_Parameters, _Result],
    *arguments: _Parameters.args,
    **options: _Parameters.kwargs,
) -> _Result:
    """Call a function in a thread if it works on many bytes, else at once."""
    if size <= LARGE_BYTES:
        return function(*arguments, **options)
    return await run(function, *arguments, **options)


def free(items: list[Any]) -> None:
    """Empty a long list part by part, in the thread that needed it; freed at once, its items would make all others wait."""
    while items:
        del items[-_PART:]
