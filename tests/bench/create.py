"""CreateInstance: accepted per second, and until ACTIVE, with Prefect at work all the while.

Beside it, in the same run, against the same server and with as many callers: Prefect's own creation of deployments,
measured before and after ours.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import psycopg

from bench.report import Row
from bench.stack import BenchStack, percentile, running_services, timed
from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc

CALLERS = (1, 16, 64)
_PATIENCE = 60.0
_POLL_SECONDS = 0.02
_WARM_UP = 20
_WAIT = "OPTAIC_ACTIVATION_WAIT_SECONDS"
_FIELDS = ("tenant_id", "instance_id", "flow_kind", "run_id")


async def measure(count: int = 300) -> list[Row]:
    """Rates and latencies of `count` creations for each number of callers; a third of them for one caller."""
    rows: list[Row] = []
    async with _world(patience=None) as world:
        for callers in CALLERS:
            rows += await _accepted(world, count, callers)
    async with _world(patience=_PATIENCE) as world:
        for callers in CALLERS:
            rows += await _active(world, count, callers)
    return rows


async def _accepted(world: _World, count: int, callers: int) -> list[Row]:
    """Answered as PROVISIONING at once, while what was accepted before is being paired."""
    number = count if callers > 1 else count // 3
    with_prefect = await world.deploy(number // 2, callers)
    begun = time.perf_counter()
    accepted = await timed(world.create, range(number), callers)
    await world.settled()
    settled = number / (time.perf_counter() - begun)
    prefect, _ = _joined(with_prefect, await world.deploy(number // 2, callers))
    rate, latencies = accepted
    name = f"CreateInstance accepted, {_callers(callers)}"
    peer = "(peer: Prefect's creation of deployments)"
    return [
        Row(f"{name} {peer}", rate, "1/s", prefect, rate / prefect),
        Row(f"{name}, p50", percentile(latencies, 0.5), "ms"),
        Row(f"{name}, p99", percentile(latencies, 0.99), "ms"),
        Row(f"{name}, all ACTIVE {peer}", settled, "1/s", prefect, settled / prefect),
    ]


async def _active(world: _World, count: int, callers: int) -> list[Row]:
    """Each caller creates the next instance when the one before is ACTIVE."""
    number = count if callers > 1 else count // 3
    with_prefect = await world.deploy(number // 2, callers)
    rate, latencies = await timed(world.create_active, range(number), callers)
    prefect, waits = _joined(with_prefect, await world.deploy(number // 2, callers))
    name = f"CreateInstance to ACTIVE, {_callers(callers)}"
    peer = "(peer: Prefect's creation of a deployment)"
    rows = [Row(f"{name} {peer}", rate, "1/s", prefect, rate / prefect)]
    for share in (0.5, 0.99):
        own, other = percentile(latencies, share), percentile(waits, share)
        rows.append(Row(f"{name}, p{share * 100:.0f} {peer}", own, "ms", other, own / other))
    return rows


def _callers(number: int) -> str:
    return f"{number} callers" if number > 1 else "1 caller"


def _joined(before: tuple[float, list[float]], after: tuple[float, list[float]]) -> tuple[float, list[float]]:
    """Return the rate and the latencies of two measurements of equal size."""
    return 2 / (1 / before[0] + 1 / after[0]), before[1] + after[1]


@dataclass
class _World:
    """One project of a service that is paired with a Prefect server."""

    stub: Any
    metadata: Any
    project_id: str
    prefect: httpx.AsyncClient
    flow_id: str
    database: psycopg.AsyncConnection[Any]
    patience: float | None  # with each creation; None: it is not waited for

    async def create(self, _: int) -> Any:
        instance = instance_pb2.Instance(project_id=self.project_id, name=f"d{secrets.token_hex(6)}")
        instance.dataset.pipeline.definition_name = "sp500_prices"
        request = instance_service_pb2.CreateInstanceRequest(
            instance=instance, request_id=secrets.token_hex(8)
        )
        return await self.stub.CreateInstance(request, metadata=self.metadata, timeout=self.patience)

    async def create_active(self, number: int) -> None:
        created = await self.create(number)
        assert created.state == instance_pb2.INSTANCE_STATE_ACTIVE, created

    async def settled(self) -> None:
        """Return when nothing is left to do for any instance."""
        while True:
            found = await self.database.execute(
                "select 1 from reconciliations where due_time is not null limit 1"
            )
            if not await found.fetchone():
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def deploy(self, count: int, callers: int) -> tuple[float, list[float]]:
        """Create deployments as instance-service does, and nothing else."""

        async def post(_: int) -> None:
            body = {
                "name": f"bench.{secrets.token_hex(16)}",
                "flow_id": self.flow_id,
                "entrypoint": "worker.flow.execute",
                "work_pool_name": "optaic",
                "tags": ["bench", "default", "refresh"],
                "parameters": {name: secrets.token_hex(16) for name in _FIELDS[:3]},
                "parameter_openapi_schema": {
                    "type": "object", "properties": {name: {"type": "string"} for name in _FIELDS}
                },
                "enforce_parameter_schema": False,
            }  # fmt: skip
            (await self.prefect.post("deployments/", json=body)).raise_for_status()

        return await timed(post, range(count), callers)


@asynccontextmanager
async def _world(*, patience: float | None) -> AsyncIterator[_World]:
    async with (
        running_services(("instance",), has_prefect=True, environment={_WAIT: "0"}) as stack,
        grpc.aio.insecure_channel(stack.endpoints.instance) as channel,
        stack.open_prefect() as prefect,
        await psycopg.AsyncConnection.connect(_infra_url(stack), autocommit=True) as database,
    ):
        stub: Any = instance_service_pb2_grpc.InstanceServiceStub(channel)
        project = await stub.CreateProject(
            instance_service_pb2.CreateProjectRequest(project=instance_pb2.Project(name="bench")),
            metadata=stack.metadata(),
        )
        flow = (await prefect.post("flows/", json={"name": "bench"})).raise_for_status().json()
        world = _World(stub, stack.metadata(), project.project_id, prefect, flow["id"], database, patience)
        await timed(world.create, range(_WARM_UP), 4)
        await world.settled()
        await world.deploy(_WARM_UP, 4)
        yield world


def _infra_url(stack: BenchStack) -> str:
    return stack.databases["instance"]["infra"].replace("+psycopg", "")
