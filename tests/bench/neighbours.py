"""The latency of one tenant while another makes ten times the calls that it may.

The rounds are quiet and loud in turns, so that the machine is equally busy with other things. The caller that floods is a
process of its own on the same machine; how many calls it made is told.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))  # the flood is started as a script: `bench` is in tests/

from bench.report import Row
from bench.stack import BenchStack, percentile, running_services
from optaic.instance.v1 import instance_service_pb2, instance_service_pb2_grpc
from servicekit.token_files import digest_of
from support.polling import eventually

_LIMIT = 50  # calls per second of one tenant
_TIMES = 10  # the flood makes so many times the calls that it may
_ROUNDS = 5
_SECONDS = 6.0
_CALLS_PER_SECOND = 20  # of the quiet tenant
_FLOODER, _NEIGHBOUR = "token-of-the-flood", "token-of-the-neighbour"
# Over the limit, or refused by gRPC itself because the connection has too many calls open.
_REFUSALS = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
_ENVIRONMENT = {"OPTAIC_AUTH": "tokens", "OPTAIC_TENANT_CALLS_PER_SECOND": str(_LIMIT)}


async def measure() -> list[Row]:
    """The medians over the rounds of the neighbour's p99, quiet and beside the flood."""
    quiet, loud, floods = list[float](), list[float](), list[float]()
    async with running_services(["instance"], environment=_ENVIRONMENT) as stack:
        _admit(stack)
        await eventually(lambda: _is_admitted(stack), 30)
        await _ask(stack, 2.0)
        for _ in range(_ROUNDS):
            quiet.append(percentile(await _ask(stack, _SECONDS), 0.99))
            flood = await asyncio.create_subprocess_exec(
                *(sys.executable, str(Path(__file__)), stack.endpoints.instance, str(_SECONDS)),
                stdout=asyncio.subprocess.PIPE,
            )
            assert flood.stdout is not None
            await flood.stdout.readline()  # it has begun
            loud.append(percentile(await _ask(stack, _SECONDS), 0.99))
            floods.append(float(await flood.stdout.readline()))
            await flood.wait()
    before, beside = statistics.median(quiet), statistics.median(loud)
    return [
        Row(
            "ListProjects, p99 beside a flood (peer: the same, quiet)", beside, "ms", before, beside / before
        ),
        Row("the same, beyond 1.5 times the quiet p99 (target: 5)", max(0.0, beside - 1.5 * before), "ms"),
        Row(
            "calls of the flood (peer: its limit)",
            statistics.median(floods),
            "1/s",
            _LIMIT,
            statistics.median(floods) / _LIMIT,
        ),
    ]


def _admit(stack: BenchStack) -> None:
    entries = {
        digest_of(token): {"tenant": tenant, "actor": "bench", "roles": ["researcher"]}
        for token, tenant in ((_FLOODER, "acme"), (_NEIGHBOUR, "other"))
    }
    Path(stack.endpoints.tokens_file).write_text(json.dumps(entries))


async def _is_admitted(stack: BenchStack) -> bool:
    """Return whether the service has read the tokens again."""
    try:
        await _ask(stack, 1 / _CALLS_PER_SECOND)
    except grpc.aio.AioRpcError:
        return False
    return True


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def _ask(stack: BenchStack, seconds: float) -> list[float]:
    """Ask at a steady rate, whether answers come or not; the seconds of each answer."""
    async with grpc.aio.insecure_channel(stack.endpoints.instance) as channel:
        stub: Any = instance_service_pb2_grpc.InstanceServiceStub(channel)

        async def ask() -> float:
            begun = time.perf_counter()
            request = instance_service_pb2.ListProjectsRequest()
            await stub.ListProjects(request, metadata=_bearer(_NEIGHBOUR), timeout=30)
            return time.perf_counter() - begun

        tasks = []
        for _ in range(int(seconds * _CALLS_PER_SECOND)):
            tasks.append(asyncio.create_task(ask()))
            await asyncio.sleep(1 / _CALLS_PER_SECOND)  # the rate
        return list(await asyncio.gather(*tasks))


async def _flood(address: str, seconds: float) -> None:
    """Make ten times the permitted calls, most of which are refused; print how many they were in a second."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = instance_service_pb2_grpc.InstanceServiceStub(channel)
        calls, pending, begun = 0, set[asyncio.Task[Any]](), time.perf_counter()

        async def ask() -> None:
            request = instance_service_pb2.ListProjectsRequest()
            try:
                await stub.ListProjects(request, metadata=_bearer(_FLOODER), timeout=30)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _REFUSALS:
                    raise

        async def keep_up(until: float) -> None:
            nonlocal calls
            while (elapsed := time.perf_counter() - begun) < until:
                while calls < elapsed * _LIMIT * _TIMES:
                    pending.add(task := asyncio.create_task(ask()))
                    task.add_done_callback(pending.discard)
                    calls += 1
                await asyncio.sleep(0.005)  # the rate

        await keep_up(1.0)
        sys.stdout.write("flooding\n")
        sys.stdout.flush()
        await keep_up(1.0 + seconds)
        await asyncio.gather(*pending)
        sys.stdout.write(f"{calls / (time.perf_counter() - begun)}\n")


if __name__ == "__main__":
    asyncio.run(_flood(sys.argv[1], float(sys.argv[2])))
