"""Makes a worker and its children say where they are in the life of a run, and wait there until they may go on.

Only a worker's own processes may import it (`support.worker_with_moments`): it changes what they execute.
"""

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from support.run_moments import (
    AFTER_COMPLETION,
    AFTER_START,
    BEFORE_CLAIM,
    BEFORE_COMPLETION,
    BEFORE_FORK,
    BEFORE_START,
    COMPUTING,
    reach,
)
from worker import execution, prefect_adapter, reports

_Call = Callable[..., Coroutine[Any, Any, Any]]


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
