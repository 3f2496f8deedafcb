"""Makes a worker and its children say where they are in the life of a run, and wait there until they may go on.

Imported into a worker's processes by `support.worker_with_moments`; the test listens and may kill one of them.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from worker import execution, prefect_adapter, reports

PORT = "OPTAIC_TEST_MOMENTS_PORT"
BEFORE_CLAIM = "before the claim"
BEFORE_FORK = "after the claim, before the fork"
BEFORE_START = "after the fork, before StartRun"
AFTER_START = "after StartRun"
COMPUTING = "while computing"
BEFORE_COMPLETION = "before CompleteRun"
AFTER_COMPLETION = "after CompleteRun, before Prefect is told"
MOMENTS = (
    BEFORE_CLAIM,
    BEFORE_FORK,
    BEFORE_START,
    AFTER_START,
    COMPUTING,
    BEFORE_COMPLETION,
    AFTER_COMPLETION,
)

_Call = Callable[..., Coroutine[Any, Any, Any]]


def reach(moment: str) -> None:
    """Say it, and wait; blocking, since nothing else of this process is to go on either."""
    with socket.create_connection(("127.0.0.1", int(os.environ[PORT]))) as gate:
        gate.sendall(f"{os.getpid()} {moment}\n".encode())
        gate.recv(1)


def _wrap(owner: type, name: str, *, before: str = "", after: str = "") -> None:
    call: _Call = getattr(owner, name)

    @functools.wraps(call)
    async def wrapped(*arguments: Any, **options: Any) -> Any:
        if before:
            reach(before)
        answer = await call(*arguments, **options)
        if after:
            reach(after)
        return answer

    setattr(owner, name, wrapped)


_wrap(prefect_adapter.WorkPool, "claim", before=BEFORE_CLAIM, after=BEFORE_FORK)
_wrap(execution._Execution, "_start", before=BEFORE_START, after=AFTER_START)
_wrap(execution._Execution, "_read_recipe", after=COMPUTING)
_wrap(reports.Reporter, "complete", before=BEFORE_COMPLETION, after=AFTER_COMPLETION)
