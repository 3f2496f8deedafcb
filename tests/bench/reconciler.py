"""The reconciler over many unchanged instances: seconds, and how often it asks the outside system.

The orchestrator is in memory: what is measured is our own work, and how many calls it would cost.
"""

from __future__ import annotations

import asyncio
import time

from google.protobuf import json_format

from bench.report import Row
from instance_service.store import queue
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import CreateInstanceRequest
from support.broker import nats_server
from support.counterparts import FakeDeployments
from support.instance_service import TENANT, RunningInstanceService, running
from support.postgres import service_database

SIZE = 10_000
_AT_ONCE = 6  # fewer than the service has connections
_POLL_SECONDS = 0.02


async def measure() -> list[Row]:
    """Seconds and calls for `SIZE` instances that are as desired."""
    deployments = FakeDeployments()
    async with service_database("instance", "instance_service") as urls:
        with nats_server() as nats:
            # Neither drift nor a start-up interval may add calls of their own.
            settings = {"drift_interval_seconds": 3600, "activation_wait_seconds": 0}
            async with running(nats.url, urls, deployments, **settings) as service:
                ids = await _populate(service)
                await _settled(service)
                calls, writes = deployments.calls, deployments.writes
                begin = time.perf_counter()
                async with service.app.environment.database.infra() as connection:
                    await queue.enqueue(connection, TENANT, ids)
                await _settled(service)
                seconds = time.perf_counter() - begin
    assert deployments.writes == writes, "an unchanged instance was written"
    return [
        Row(f"reconciler, {SIZE:,} unchanged instances", seconds, "s"),
        Row(f"reconciler, {SIZE:,} unchanged instances", deployments.calls - calls, "calls"),
    ]


async def _populate(service: RunningInstanceService) -> list[str]:
    project = await service.project()
    slots = asyncio.Semaphore(_AT_ONCE)

    async def create(number: int) -> str:
        pipeline = {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}}
        given = {"projectId": project.project_id, "name": f"d{number}", "dataset": {"pipeline": pipeline}}
        async with slots:
            request = CreateInstanceRequest(instance=json_format.ParseDict(given, Instance()))
            return str((await service.instances.CreateInstance(request)).instance_id)

    return list(await asyncio.gather(*(create(number) for number in range(SIZE))))


async def _settled(service: RunningInstanceService) -> None:
    while True:
        async with service.app.environment.database.infra() as connection:
            if not await queue.count_unsettled(connection):
                return
        await asyncio.sleep(_POLL_SECONDS)
