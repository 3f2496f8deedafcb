"""From CompleteRun, as a worker calls it, to the status that a watcher sees; every service a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from typing import Any, Self

import grpc

from bench.report import Row
from bench.stack import BenchStack, create_datasets, percentile, running_services
from optaic.common.v1 import flow_pb2
from optaic.rules.locations import data_folder
from optaic.run.v1 import (
    run_report_service_pb2,
    run_report_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
)
from optaic.status.v1 import status_service_pb2, status_service_pb2_grpc

RUNS = 200
_WARM_UP = 10
_DEADLINE = 20.0


async def measure() -> list[Row]:
    """Latencies of runs that complete one after the other."""
    async with running_services() as stack:
        instance_ids = await create_datasets(stack, RUNS + _WARM_UP)
        async with _Session(stack) as session:
            latencies = [await session.complete_one(instance_id) for instance_id in instance_ids][_WARM_UP:]
    answers = [answered for answered, _ in latencies]
    seen = [total for _, total in latencies]
    return [
        Row("CompleteRun called -> READY seen by a watcher, p50", percentile(seen, 0.5), "ms"),
        Row("CompleteRun called -> READY seen by a watcher, p99", percentile(seen, 0.99), "ms"),
        Row("CompleteRun called -> answered, p50", percentile(answers, 0.5), "ms"),
    ]


class _Session:
    """One watcher and one executor."""

    def __init__(self, stack: BenchStack) -> None:
        self._stack = stack
        self._runs_channel = grpc.aio.insecure_channel(stack.endpoints.run)
        self._status_channel = grpc.aio.insecure_channel(stack.endpoints.status)
        self._runs: Any = run_service_pb2_grpc.RunServiceStub(self._runs_channel)
        self._reports: Any = run_report_service_pb2_grpc.RunReportServiceStub(self._runs_channel)
        self._status: Any = status_service_pb2_grpc.StatusServiceStub(self._status_channel)
        self._ready: dict[str, asyncio.Future[float]] = {}
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        begun = asyncio.Event()
        self._watching = asyncio.create_task(self._watch(begun))
        await asyncio.wait_for(begun.wait(), _DEADLINE)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watching is not None
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._runs_channel.close()
        await self._status_channel.close()

    async def complete_one(self, instance_id: str) -> tuple[float, float]:
        """Seconds from the call to its answer, and to the status READY."""
        user, executor = self._stack.metadata(), self._stack.metadata(as_executor=True)
        seen = self._ready[instance_id] = asyncio.get_running_loop().create_future()
        run = await self._runs.SubmitRun(
            run_service_pb2.SubmitRunRequest(instance_id=instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH),
            metadata=user,
        )
        while not run.orchestrator_run_id:
            run = await self._runs.GetRun(run_service_pb2.GetRunRequest(run_id=run.run_id), metadata=user)
        started = await self._reports.StartRun(
            run_report_service_pb2.StartRunRequest(
                run_id=run.run_id,
                orchestrator_run_id=run.orchestrator_run_id,
                executor="bench",
                start_secret=secrets.token_hex(32),
            ),
            metadata=executor,
        )
        request = run_report_service_pb2.CompleteRunRequest(
            run_id=run.run_id,
            fencing_token=started.fencing_token,
            credential=started.credential,
            output_version=flow_pb2.VersionRef(
                uri=f"file:///bench/{data_folder('default', instance_id, 'refresh')}",
                physical_version="0",
                digest=hashlib.sha256(run.run_id.encode()).hexdigest(),
                last_data_date="2021-12-31",
            ),
        )
        request.pipeline.rows_fetched = 1
        begun = time.perf_counter()
        await self._reports.CompleteRun(request, metadata=executor)
        answered = time.perf_counter() - begun
        return answered, await asyncio.wait_for(seen, _DEADLINE) - begun

    async def _watch(self, begun: asyncio.Event) -> None:
        stream = self._status.WatchInstanceStatuses(
            status_service_pb2.WatchInstanceStatusesRequest(), metadata=self._stack.metadata()
        )
        async for change in stream:
            if not change.HasField("instance_status"):
                begun.set()
                continue
            status = change.instance_status
            waiting = self._ready.get(status.instance_id)
            if status.status == flow_pb2.STATUS_READY and waiting is not None and not waiting.done():
                waiting.set_result(time.perf_counter())
