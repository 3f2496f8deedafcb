"""Call what may hang for ever, as a file on a mount that is away: in a few threads of its own, and for a limited time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class HangingError(OSError):
    """All threads hang in earlier calls."""


class HangingCalls:
    """Calls of one outside system. Its threads are daemons: neither other work nor the end of the process waits for them."""

    def __init__(self, name: str, timeout_seconds: float, most_threads: int) -> None:
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._most_threads = most_threads
        self._threads: set[threading.Thread] = set()

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run `work` in a thread; a thread that hangs cannot be ended.

        Raises:
            HangingError: as many threads hang as there may be.
            TimeoutError: it takes too long; it may still end.
        """
        self._threads = {thread for thread in self._threads if thread.is_alive()}
        if len(self._threads) >= self._most_threads:
            raise HangingError(f"{self._most_threads} threads wait for it; check its mount")
        outcome: concurrent.futures.Future[_T] = concurrent.futures.Future()
        outcome.set_running_or_notify_cancel()  # a caller that gives up must not cancel the work
        thread = threading.Thread(target=_settle, args=(outcome, work), name=self._name, daemon=True)
        self._threads.add(thread)
        thread.start()
        async with asyncio.timeout(self._timeout_seconds):
            return await asyncio.wrap_future(outcome)


def _settle(outcome: concurrent.futures.Future[_T], work: Callable[[], _T]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - the waiting caller gets it
        outcome.set_exception(error)
