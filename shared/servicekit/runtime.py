"""Run a process: its event loop, its signals, and the log line of its end."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

import uvloop

from redaction import redact


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main(stop)` on uvloop until it returns; SIGTERM and SIGINT set `stop`."""

    async def with_signals() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    sys.excepthook = _log_without_secrets
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(with_signals())


def keep_loaded() -> None:
    """Exempt all that is loaded from the collection of cycles: looking at it stops every thread for a tenth of a second."""
    gc.collect()
    gc.freeze()


def _log_without_secrets(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Log what ended the process without secrets: drivers repeat the URLs that they were given."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
