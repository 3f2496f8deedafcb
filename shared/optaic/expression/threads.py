"""Compute the parts of an array in several threads at once.

A part is computed from its own values alone, so neither the number of threads nor their order changes a bit. numpy and polars
let other threads run while they compute.

The threads of a call end with it. So a process that forks between two calls has none, and its child waits for none.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import polars as pl

_MOST = 4  # threads
_FEWEST = 200_000  # values for which a second thread is worth its start

_Part = TypeVar("_Part")


def compute_parts(compute: Callable[[_Part], object], parts: Iterable[_Part], values: int) -> None:
    """Compute all parts, in any order; the first error of one ends the computation.

    Args:
        compute: stores the results of a part in a place of its own.
        parts: what the threads take, one after the other.
        values: how many values all parts have.
    """
    waiting = deque(parts)
    helpers = min(count_threads(values), len(waiting)) - 1
    if helpers < 1:
        for part in waiting:
            compute(part)
        return

    def work() -> None:
        try:
            while waiting:
                try:
                    part = waiting.popleft()
                except IndexError:  # another thread has taken the last one
                    return
                compute(part)
        finally:
            waiting.clear()  # after an error the others stop too

    begun: list[Future[None]] = []
    with ThreadPoolExecutor(helpers) as pool:
        with contextlib.suppress(RuntimeError):  # the system gives no thread: there are fewer
            begun.extend(pool.submit(copy_context().run, work) for _ in range(helpers))
        work()
        for each in begun:
            each.result()


def count_threads(values: int) -> int:
    """Return how many threads compute so many values: as many as polars has, at most four.

    One for a thread that Python has not started: it may be one of those of polars, which must not wait for each other.
    """
    if values < _FEWEST or isinstance(threading.current_thread(), threading._DummyThread):  # noqa: SLF001 - there is no public way
        return 1
    return min(_MOST, pl.thread_pool_size())
