"""Ours beside Dagster and ML Metadata, each in an environment of its own, which is made from the package index.

Without the index a peer is skipped, and its row says so.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from bench.layered_graph import fill, instance_id
from bench.report import Row
from bench.stack import BenchStack, running_services
from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_service_pb2 as api
from optaic.lineage.v1.lineage_service_pb2_grpc import LineageServiceStub

_PROGRAMS = Path(__file__).with_name("peers")
_ENVIRONMENTS = Path(__file__).parents[2] / "build" / "peers"
_ABOVE = 10  # flows above the last one of the second graph, for each asset of the first
_LAYERS = 110  # of the graph with so many flows above its last one
_ROUNDS = 5


async def measure(assets: int) -> list[Row]:
    """Return how many times faster ours is."""
    above = assets * _ABOVE
    dagster = await _run_peer("dagster==1.13.29", "dagster_statuses.py", assets)
    metadata = await _run_peer("ml-metadata==1.17.1", "metadata_lineage.py", above)
    statuses = await _read_statuses(assets)
    name = f"stale statuses of {assets:,} assets"
    rows = _beside(f"{name}, Dagster one by one (limit: 100 times)", dagster, "seconds", statuses)
    rows += _beside(f"{name}, Dagster with prefetched records", dagster, "prefetched_seconds", statuses)
    ready, listed = await _read_lineage(above)
    name = f"lineage of {above:,}, ML Metadata's subgraph"
    rows += _beside(f"{name} beside CheckUpstreamFreshness (limit: 20 times)", metadata, "seconds", ready)
    return rows + _beside(f"{name} beside ListUpstreams with all states", metadata, "seconds", listed)


def _beside(name: str, peer: dict[str, float] | str, key: str, ours: float) -> list[Row]:
    if isinstance(peer, str):
        return [Row(f"{name}: skipped, {peer}", ours * 1000, "ms")]
    seconds = peer[key]
    return [
        Row(name, ours * 1000, "ms", seconds * 1000),
        Row(f"{name}: times faster", seconds / ours, "times"),
    ]


async def _run_peer(package: str, program: str, count: int) -> dict[str, float] | str:
    """Return what the program of a peer prints, or why there is no environment for it."""
    environment = _ENVIRONMENTS / package.partition("==")[0]
    python = environment / "bin" / "python"
    uv = str(Path(sys.executable).with_name("uv"))
    for command in (
        (uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(environment)),
        (uv, "pip", "install", "--quiet", "--python", str(python), package),
    ):
        status, _, errors = await _execute(*command)
        if status:
            return f"no environment with {package}: {errors.strip()[-200:]}"
    status, answer, errors = await _execute(str(python), str(_PROGRAMS / program), str(count))
    assert status == 0, errors
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    return found


async def _execute(*command: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    answer, errors = await process.communicate()
    return process.returncode, answer.decode(), errors.decode()


async def _read_statuses(assets: int) -> float:
    """Return the seconds for the states of the flows below one that has moved, with the causes of each."""
    width = assets // 10
    async with running_services(("lineage",)) as stack, _open(stack) as call:
        await fill(_database(stack), assets, width, spread=3, step=1)
        await call("InvalidateFlow", api.InvalidateFlowRequest(flow=_flow(0), reason="bench"))
        request = api.ListDownstreamsRequest(flow=_flow(0), page_size=assets)
        return await _fastest(call, "ListDownstreams", request)


async def _read_lineage(above: int) -> tuple[float, float]:
    """Return the seconds for whether all above a flow is up to date, and for the states of all above it."""
    width = above // 100
    async with running_services(("lineage",)) as stack, _open(stack) as call:
        await fill(_database(stack), _LAYERS * width, width, spread=3, step=1)
        flow = _flow(_LAYERS * width - 1)
        ready = api.CheckUpstreamFreshnessRequest(flow=flow)
        every = api.ListUpstreamsRequest(flow=flow, page_size=min(above, 10_000))
        return await _fastest(call, "CheckUpstreamFreshness", ready), await _fastest(
            call, "ListUpstreams", every
        )


async def _fastest(call: Any, name: str, request: Any) -> float:
    elapsed = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        await call(name, request)
        elapsed.append(time.perf_counter() - began)
    return min(elapsed)


@asynccontextmanager
async def _open(stack: BenchStack) -> AsyncIterator[Callable[[str, Any], Awaitable[Any]]]:
    async with grpc.aio.insecure_channel(stack.endpoints.lineage) as channel:
        stub: Any = LineageServiceStub(channel)
        yield lambda name, request: getattr(stub, name)(request, metadata=stack.metadata(), timeout=120)


def _database(stack: BenchStack) -> str:
    return f"{stack.endpoints.postgres_admin.rsplit('/', 1)[0]}/optaic_lineage"


def _flow(number: int) -> flow_pb2.FlowRef:
    return flow_pb2.FlowRef(instance_id=instance_id(number), flow_kind=flow_pb2.FLOW_KIND_REFRESH)
