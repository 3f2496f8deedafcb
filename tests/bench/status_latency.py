"""From CompleteRun, as a worker calls it, to the status that a watcher sees; every service a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
import psycopg

from bench.hops import noting
from bench.report import Row
from bench.stack import BenchStack, at_rest, create_datasets, for_each, percentile, running_services
from optaic.common.v1 import flow_pb2
from optaic.rules.locations import data_folder
from optaic.run.v1 import (
    run_report_service_pb2,
    run_report_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
)
from optaic.status.v1 import status_service_pb2, status_service_pb2_grpc

_WARM_UP = 10
_STARTERS = 16
_RATE = 50  # completions in a second, offered whether or not the ones before are seen
_DEADLINE = 20.0
# No Prefect runs here: what the dispatcher would store is stored directly.
_PAIR = "update runs set orchestrator_run_id = %s where run_id = %s"
_Request = run_report_service_pb2.CompleteRunRequest


async def measure(runs: int) -> list[Row]:
    """Latencies of runs that complete one after the other, hop by hop, and of as many that complete at a rate."""
    async with running_services() as stack:
        instance_ids = await create_datasets(stack, runs + _WARM_UP)
        await at_rest(stack)
        async with noting(stack) as hops, Session(stack) as session:
            alone = [await session.complete_one(each) for each in instance_ids][_WARM_UP:]
            await at_rest(stack)
            parts = await hops.rows(stack, {each.run_id: (each.called, each.seen) for each in alone})
        async with Session(stack) as session:
            offered = (await session.complete_at(_RATE, instance_ids))[_WARM_UP:]
    return [*_rows(alone, "one at a time"), *parts, *_rows(offered, f"{_RATE}/s")]


def _rows(done: Sequence[_Completion], how: str) -> list[Row]:
    answers = [each.answered - each.called for each in done]
    seen = [each.seen - each.called for each in done]
    return [
        Row(f"CompleteRun called -> READY seen by a watcher, {how}, p50", percentile(seen, 0.5), "ms"),
        Row(f"CompleteRun called -> READY seen by a watcher, {how}, p99", percentile(seen, 0.99), "ms"),
        Row(f"CompleteRun called -> answered, {how}, p50", percentile(answers, 0.5), "ms"),
    ]


@dataclass(frozen=True)
class _Completion:
    """One completed run, and the times of the call, its answer and the status READY."""

    run_id: str
    called: float
    answered: float
    seen: float


class Session:
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
        url = f"{self._stack.endpoints.postgres_admin.rsplit('/', 1)[0]}/optaic_run"
        self._pairing = await psycopg.AsyncConnection.connect(url, autocommit=True)
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
        await self._pairing.close()

    async def complete_one(self, instance_id: str) -> _Completion:
        """Submit, start and complete a run, and wait for the status READY."""
        return await self._complete(await self._start(instance_id))

    async def complete_at(self, rate: float, instance_ids: Sequence[str]) -> list[_Completion]:
        """Start a run of each instance; then complete them at a rate, whatever has become of those before."""
        started = await for_each(self._start, instance_ids, _STARTERS)
        await at_rest(self._stack)
        begun = asyncio.get_running_loop().time()

        async def complete(number: int) -> _Completion:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(begun + number / rate - loop.time())  # the offered rate
            return await self._complete(started[number])

        return await asyncio.gather(*(complete(number) for number in range(len(started))))

    async def _start(self, instance_id: str) -> _Request:
        """Submit and start a run; return the report of its completion."""
        user, executor = self._stack.metadata(), self._stack.metadata(as_executor=True)
        run = await self._runs.SubmitRun(
            run_service_pb2.SubmitRunRequest(instance_id=instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH),
            metadata=user,
        )
        flow_run_id = str(uuid.uuid4())
        await self._pairing.execute(_PAIR, [flow_run_id, run.run_id])
        started = await self._reports.StartRun(
            run_report_service_pb2.StartRunRequest(
                run_id=run.run_id,
                orchestrator_run_id=flow_run_id,
                executor="bench",
                start_secret=secrets.token_hex(32),
            ),
            metadata=executor,
        )
        request = _Request(
            run_id=run.run_id,
            fencing_token=started.fencing_token,
            credential=started.credential,
            output_version=flow_pb2.VersionRef(
                uri=f"{self._stack.endpoints.data_root}/{data_folder('default', instance_id, 'refresh')}",
                physical_version="0",
                digest=hashlib.sha256(run.run_id.encode()).hexdigest(),
                last_data_date="2021-12-31",
            ),
        )
        request.pipeline.rows_fetched = 1
        return request

    async def _complete(self, request: _Request) -> _Completion:
        seen = self._ready[request.run_id] = asyncio.get_running_loop().create_future()
        called = time.time()
        await self._reports.CompleteRun(request, metadata=self._stack.metadata(as_executor=True))
        answered = time.time()
        return _Completion(request.run_id, called, answered, await asyncio.wait_for(seen, _DEADLINE))

    async def _watch(self, begun: asyncio.Event) -> None:
        stream = self._status.WatchInstanceStatuses(
            status_service_pb2.WatchInstanceStatusesRequest(), metadata=self._stack.metadata()
        )
        async for change in stream:
            if not change.HasField("instance_status"):
                begun.set()
                continue
            status = change.instance_status
            waiting = self._ready.get(status.last_run_id)
            if status.status == flow_pb2.STATUS_READY and waiting is not None and not waiting.done():
                waiting.set_result(time.time())
