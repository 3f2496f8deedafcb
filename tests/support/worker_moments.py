"""Makes a worker and its children say where they are in the life of a run, and wait there until they may go on.

Only a worker's own processes may import it (`support.worker_with_moments`): it changes what they execute.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from optaic.storage import local
from support.run_moments import (
    AFTER_COMPLETION,
    AFTER_START,
    BEFORE_CLAIM,
    BEFORE_COMPLETION,
    BEFORE_FORK,
    BEFORE_START,
    COMPUTING,
    FIGURES_LOGGED,
    FILES_UPLOADED,
    LINES_SENT,
    OWED,
    READING,
    RUN_CREATED,
    RUN_ENDED,
    SETTLING,
    SNAPSHOT_DRAFTED,
    SNAPSHOT_WRITTEN,
    VERSION_REGISTERED,
    WRITING,
    reach,
)
from worker import execution, log_delivery, prefect_adapter, reports
from worker.builtin import delta_store, simple_accessor
from worker.telemetry import evidently_adapter, mlflow_adapter, spool


def _wrap(owner: object, name: str, *, before: str = "", after: str = "") -> None:
    call: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(call)
    async def wrapped(*arguments: Any, **options: Any) -> Any:
        if before:
            reach(before)
        answer = await call(*arguments, **options)
        if after:
            reach(after)
        return answer

    @functools.wraps(call)
    def wrapped_plainly(*arguments: Any, **options: Any) -> Any:
        if before:
            reach(before)
        answer = call(*arguments, **options)
        if after:
            reach(after)
        return answer

    setattr(owner, name, wrapped if inspect.iscoroutinefunction(call) else wrapped_plainly)


_wrap(prefect_adapter.WorkPool, "claim", before=BEFORE_CLAIM, after=BEFORE_FORK)
_wrap(execution._Execution, "_start", before=BEFORE_START, after=AFTER_START)
_wrap(execution._Execution, "_read_recipe", after=COMPUTING)
_wrap(reports.Reporter, "complete", before=BEFORE_COMPLETION, after=AFTER_COMPLETION)

_wrap(simple_accessor.SimpleAccessor, "read", before=READING)
_wrap(local, "create_file", after=WRITING)  # the file is there, and empty
_wrap(delta_store.DeltaStore, "write", after=WRITING)
_wrap(delta_store.DeltaStore, "write_part", after=WRITING)

_wrap(spool.Spool, "owe", after=OWED)
_wrap(spool.Spool, "settle", before=SETTLING)
_wrap(mlflow_adapter.MlflowDeliverer, "_create_run", after=RUN_CREATED)
_wrap(mlflow_adapter.MlflowDeliverer, "_log", after=FIGURES_LOGGED)
_wrap(mlflow_adapter.MlflowDeliverer, "_upload", after=FILES_UPLOADED)
_wrap(mlflow_adapter.MlflowDeliverer, "_register", after=VERSION_REGISTERED)
_wrap(mlflow_adapter.MlflowDeliverer, "_end", after=RUN_ENDED)
_wrap(evidently_adapter, "_give", before=SNAPSHOT_DRAFTED)
_wrap(evidently_adapter.EvidentlySnapshots, "_write", after=SNAPSHOT_WRITTEN)

_wrap(log_delivery.LogDelivery, "_send_or_lose", after=LINES_SENT)
