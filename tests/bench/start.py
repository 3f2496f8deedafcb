"""From SubmitRun to the first line of the plugin, and how many trivial runs end in a second; with one worker.

Beside it, in the same run: the same with Prefect alone. A flow run is created, found in the work pool and claimed, and
a process is forked from a warm one.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx

from bench.report import Row
from bench.stack import BenchStack, at_rest, create_active_datasets, for_each, percentile, running_services
from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2, definition_service_pb2, definition_service_pb2_grpc
from optaic.run.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from support.plugin_packages import install_package

RUNS = 100  # drained at once
_SINGLE_RUNS = 40  # one after the other
_WARM_UP = 5
_ROUNDS = 2  # of ours and of the peer, in turns
_CALLERS = 16
_AT_ONCE = 4  # flow runs that the peer executes at once, as the worker does on two cores
_PAUSE = 0.02  # seconds between two looks of the peer; each costs Prefect work in the background
_DEADLINE = 300.0
_DEFINITION = "bench_stamp"
_PACKAGE = Path(__file__).with_name("stamp_package")


async def measure() -> list[Row]:
    """Return latencies and rates."""
    starts: list[float] = []
    rates: list[float] = []
    peer_starts: list[float] = []
    peer_rates: list[float] = []
    async with _stack() as stack, _Runs.connect(stack) as runs, _Peer.connect(stack) as peer:
        for number in range(_WARM_UP):
            await runs.execute(number)
            await peer.execute()
        for _ in range(_ROUNDS):
            for number in range(_SINGLE_RUNS // _ROUNDS):
                starts.append(await runs.execute(number))
                peer_starts.append(await peer.execute())
            await at_rest(stack)
            rates.append(await runs.drain())
            await at_rest(stack)
            peer_rates.append(await peer.drain())
    rate, peer_rate = _mean(rates), _mean(peer_rates)
    rows = []
    for share in (0.5, 0.9):
        own, other = percentile(starts, share), percentile(peer_starts, share)
        name = f"SubmitRun called -> first line of the plugin, p{share * 100:.0f} (peer: Prefect and a fork)"
        rows.append(Row(name, own, "ms", other, own / other))
    name = f"{RUNS} trivial runs, from the first call to the last end (peer: Prefect and forks)"
    return [*rows, Row(name, rate, "1/s", peer_rate, peer_rate / rate)]


def _mean(rates: list[float]) -> float:
    return len(rates) / sum(1 / rate for rate in rates)


@asynccontextmanager
async def _stack() -> AsyncIterator[BenchStack]:
    with tempfile.TemporaryDirectory(prefix="optaic-bench-plugins-") as folder:
        environment = {"PYTHONPATH": str(await asyncio.to_thread(_install, Path(folder)))}
        async with running_services(has_worker=True, environment=environment) as stack:
            yield stack


def _install(folder: Path) -> Path:
    folder.chmod(0o755)  # the plugin may run under another uid
    return install_package(_PACKAGE, folder / "packages")


@dataclass(frozen=True)
class _Runs:
    """Datasets with a trivial pipeline, and what executes them."""

    stub: Any
    metadata: Any
    instance_ids: list[str]

    @classmethod
    @asynccontextmanager
    async def connect(cls, stack: BenchStack) -> AsyncIterator[_Runs]:
        await _publish(stack)
        instance_ids = await create_active_datasets(stack, RUNS, _DEFINITION)
        async with grpc.aio.insecure_channel(stack.endpoints.run) as channel:
            yield cls(run_service_pb2_grpc.RunServiceStub(channel), stack.metadata(), instance_ids)

    async def execute(self, number: int) -> float:
        """Return the seconds from the call to the first line of the plugin."""
        begun = time.time()
        run = await self._end(await self._submit(self.instance_ids[number]))
        return float(str(run.metrics["first_line_time"])) - begun

    async def drain(self) -> float:
        """Return how many runs end in a second, when all are submitted at once."""
        begun = time.perf_counter()
        run_ids = await for_each(self._submit, self.instance_ids, _CALLERS)
        await for_each(self._end, run_ids, len(run_ids))
        return len(run_ids) / (time.perf_counter() - begun)

    async def _submit(self, instance_id: str) -> str:
        request = run_service_pb2.SubmitRunRequest(
            instance_id=instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH
        )
        return str((await self.stub.SubmitRun(request, metadata=self.metadata, timeout=_DEADLINE)).run_id)

    async def _end(self, run_id: str) -> run_pb2.Run:
        """Return the run when it has ended."""
        request = run_service_pb2.WatchRunRequest(run_id=run_id)
        stream = self.stub.WatchRun(request, metadata=self.metadata, timeout=_DEADLINE)
        run: run_pb2.Run = [change async for change in stream][-1]
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run
        return run


async def _publish(stack: BenchStack) -> None:
    version = definition_pb2.DefinitionVersion(version="1.0.0", code_ref="bench_stamp.pipelines:Stamp")
    version.parameters_schema.update({"type": "object"})
    version.flow_specs.add(flow_kind=flow_pb2.FLOW_KIND_REFRESH, is_default=True)
    request = definition_service_pb2.PublishDefinitionRequest(
        name=_DEFINITION, kind=definition_pb2.DEFINITION_KIND_PIPELINE, definition_version=version
    )
    async with grpc.aio.insecure_channel(stack.endpoints.instance) as channel:
        stub: Any = definition_service_pb2_grpc.DefinitionServiceStub(channel)
        await stub.PublishDefinition(request, metadata=stack.metadata())


@dataclass(frozen=True)
class _Peer:
    """Prefect without services: a work pool of its own, with one deployment in it."""

    client: httpx.AsyncClient
    pool: str
    deployment_id: str
    fork: Callable[[], Awaitable[float]]

    @classmethod
    @asynccontextmanager
    async def connect(cls, stack: BenchStack) -> AsyncIterator[_Peer]:
        pool = f"bench-{secrets.token_hex(4)}"
        async with (
            stack.open_prefect() as client,
            _warm_process() as fork,
        ):
            await _post(client, "/work_pools/", {"name": pool, "type": "bench"})
            flow = await _post(client, "/flows/", {"name": "bench"})
            body = {"name": "bench", "flow_id": flow["id"], "entrypoint": "bench", "work_pool_name": pool}
            deployment = await _post(client, "/deployments/", body)
            yield cls(client, pool, deployment["id"], fork)

    async def execute(self) -> float:
        """Return the seconds until the first line of a forked process, with a flow run that runs."""
        begun = time.time()
        await self._create()
        (flow_run_id,) = await self._due()
        first_line = await self._run(flow_run_id)
        await self._set(flow_run_id, "COMPLETED")
        return first_line - begun

    async def drain(self) -> float:
        """Return how many flow runs end in a second, when all are created at once."""
        begun = time.perf_counter()
        created = asyncio.create_task(for_each(lambda _: self._create(), range(RUNS), _CALLERS))
        under_way: set[asyncio.Task[None]] = set()
        seen: set[str] = set()
        while len(seen) < RUNS:
            for flow_run_id in await self._due():
                if flow_run_id in seen:
                    continue
                seen.add(flow_run_id)
                if len(under_way) >= _AT_ONCE:
                    _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                under_way.add(asyncio.create_task(self._execute(flow_run_id)))
        await created
        await asyncio.gather(*under_way)
        return RUNS / (time.perf_counter() - begun)

    async def _execute(self, flow_run_id: str) -> None:
        await self._run(flow_run_id)
        await self._set(flow_run_id, "COMPLETED")

    async def _create(self) -> None:
        body = {"state": {"type": "SCHEDULED", "name": "Scheduled"}}
        await _post(self.client, f"/deployments/{self.deployment_id}/create_flow_run", body)

    async def _due(self) -> list[str]:
        path = f"/work_pools/{self.pool}/get_scheduled_flow_runs"
        while True:
            body = {"scheduled_before": dt.datetime.now(dt.UTC).isoformat()}
            if found := await _post(self.client, path, body):
                return [each["flow_run"]["id"] for each in found]
            await asyncio.sleep(_PAUSE)

    async def _run(self, flow_run_id: str) -> float:
        for state in ("PENDING", "RUNNING"):
            await self._set(flow_run_id, state)
        return await self.fork()

    async def _set(self, flow_run_id: str, state: str) -> None:
        await _post(self.client, f"/flow_runs/{flow_run_id}/set_state", {"state": {"type": state}})


async def _post(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    return (await client.post(path, json=body)).raise_for_status().json()


@asynccontextmanager
async def _warm_process() -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """Start the bare warm process; yield a call that forks it and returns when the child was at its first line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("forking.py"))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    orders, answers, turns = process.stdin, process.stdout, asyncio.Lock()

    async def fork() -> float:
        async with turns:  # it forks one after the other
            orders.write(b"\n")
            return float(await answers.readline())

    try:
        yield fork
    finally:
        orders.close()  # which ends it
        await process.wait()
