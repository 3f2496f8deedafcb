"""A refresh of all flows of a layered graph that have never run; SQL has filled it, and no run is executed.

lineage-service and run-service run in this process: memory and the time for which the event loop is held are those of both.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Awaitable
from typing import Any

from bench.history import longest_hold
from bench.report import Row
from optaic.run.v1 import refresh_pb2, run_service_pb2
from servicekit.runtime import keep_loaded, keep_memory_dense
from support.broker import NatsAccounts
from support.large_refresh import large_refresh
from support.polling import eventually

_LAYERS = 100
_ALL = refresh_pb2.RefreshSelection(all=True)


async def measure(flows: int) -> list[Row]:
    """Return the seconds of each call, the memory, and how long the event loop was held."""
    accounts = NatsAccounts()
    rows: list[Row] = []

    async def timed(name: str, call: Awaitable[Any]) -> Any:
        began = time.perf_counter()
        answer = await call
        rows.append(Row(f"{name}, {flows:,} flows", time.perf_counter() - began, "s"))
        return answer

    async with large_refresh(accounts, flows // _LAYERS, _LAYERS) as run:
        keep_loaded()
        keep_memory_dense()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with longest_hold() as holds:
            plan = run_service_pb2.PlanRefreshRequest(selection=_ALL)
            submit = run_service_pb2.SubmitRefreshRequest(selection=_ALL)
            await timed("PlanRefresh", run.runs.PlanRefresh(plan, timeout=300))
            refresh = await timed("SubmitRefresh", run.runs.SubmitRefresh(submit, timeout=300))
            await timed("SubmitRefresh answered until its first runs are submitted", _begun(run.runs))
            page = run_service_pb2.ListRefreshFlowsRequest(refresh_id=refresh.refresh_id, page_size=1_000)
            await timed("ListRefreshFlows of 1,000", run.runs.ListRefreshFlows(page, timeout=300))
            cancel = run_service_pb2.CancelRefreshRequest(refresh_id=refresh.refresh_id)
            await timed("CancelRefresh", run.runs.CancelRefresh(cancel, timeout=300))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        rows.append(Row(f"a refresh of {flows:,} flows: more memory than ever before", grown / 1024, "MB"))
        name = f"a refresh of {flows:,} flows: longest hold of the event loop"
        rows.append(Row(name, max(holds) * 1000, "ms"))
    accounts.close()
    return rows


async def _begun(runs: Any) -> None:
    async def has_begun() -> bool:
        return bool((await runs.ListRuns(run_service_pb2.ListRunsRequest(), timeout=300)).runs)

    await eventually(has_begun, 300)
