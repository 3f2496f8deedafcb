"""Run a process: its event loop, its signals, and the log line of its end."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

import uvloop

from redaction import redact

_GIVE_BACK_SECONDS = 60.0
_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU C library
_mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)  # the same
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # of mallopt
_LARGE = 256 << 10  # bytes; what is larger goes back to the system as soon as it is free
_COLLECTIONS = (5_000, 10, 10)  # of the three generations; Python's are 700, 10, 10
_ARENAS = 2  # the threads of gRPC and of drivers need no more, and each arena keeps holes of its own


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main(stop)` on uvloop until it returns; SIGTERM and SIGINT set `stop`."""

    async def with_signals() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    sys.excepthook = _log_without_secrets
    keep_memory_dense()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(with_signals())


def keep_loaded() -> None:
    """Exempt all that is loaded from the collection of cycles, which would stop every thread for a tenth of a second.

    What an answer of many objects is made of is collected seldom: Python's own thresholds walk over all of it five times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)


def keep_memory_dense() -> None:
    """Have the C library keep large requests apart, so that they leave no holes that only grow."""
    if _mallopt is not None:
        _mallopt(_MMAP_THRESHOLD, _LARGE)
        _mallopt(_ARENA_MAX, _ARENAS)


async def give_back_memory() -> None:
    """Give free memory back to the system regularly, for ever."""
    while True:
        await asyncio.sleep(_GIVE_BACK_SECONDS)
        await asyncio.to_thread(give_back)


def give_back() -> None:
    """Give free memory back to the system; the C library keeps, for each thread, what large requests have left."""
    if _trim is not None:
        _trim(0)


def _log_without_secrets(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Log what ended the process without secrets: drivers repeat the URLs that they were given."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
