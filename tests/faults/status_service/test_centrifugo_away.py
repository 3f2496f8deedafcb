"""Centrifugo is away for minutes, and status-service serves on: what waits is bounded, and ends with the newest of each channel."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from dataclasses import dataclass
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from structlog.testing import capture_logs

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2
from optaic.rules.realtime import status_channel
from optaic.status.v1 import status_service_pb2 as api
from servicekit.enums import enum_word
from servicekit.ids import new_id
from servicekit.outlet import BATCH, Publication
from support.campaigns import IS_FULL, count
from support.centrifugo import CentrifugoServer, centrifugo_binary, centrifugo_server
from support.polling import PATIENCE, eventually
from support.proxy import Proxy
from support.status_service import (
    TENANT,
    RunningStatusService,
    flow_change,
    flow_statuses,
    instance,
    status_service,
)

pytestmark = pytest.mark.faults
_SECONDS = count("OPTAIC_CENTRIFUGO_AWAY_SECONDS", 3, 600)
_INSTANCES = 50
_BUFFER = 200
_CHANGES_PER_SECOND = 40 if IS_FULL else 400
_MIB = 2**20
# Of the process with the test, its clients and the service.
_GROWTH = 30 * _MIB


@dataclass
class _Traffic:
    """Instances whose flows change without end."""

    service: RunningStatusService
    instance_ids: list[str]
    made: int = 0

    async def change(self) -> None:
        """Start or end a run of each instance of a tenth of them, in turn."""
        tenth = len(self.instance_ids) // 10
        first = self.made // tenth % 10 * tenth
        number = self.made // len(self.instance_ids)
        word = "RUNNING" if number % 2 == 0 else "READY"
        changes = [
            flow_change(each, word, version=number // 2 + 1, run_number=number // 2 + 1)
            for each in self.instance_ids[first : first + tenth]
        ]
        self.made += tenth
        await self.service.applied(*await self.service.publish(flow_statuses(self.made, *changes)))

    async def statuses(self) -> dict[str, tuple[int, str]]:
        """Return the revision and the status of each instance, as PostgreSQL has them."""
        request = api.BatchGetInstanceStatusesRequest(instance_ids=self.instance_ids)
        answer = await self.service.stub.BatchGetInstanceStatuses(request)
        return {
            each.instance_id: (each.revision, enum_word(flow_pb2.Status, each.status))
            for each in answer.instance_statuses
        }


async def _traffic(service: RunningStatusService) -> _Traffic:
    ids = [new_id() for _ in range(_INSTANCES)]
    messages = [instance_events_pb2.InstanceCreated(instance=instance(each, f"i{each}")) for each in ids]
    await service.applied(*await service.publish(*messages))
    return _Traffic(service, ids)


async def _has_newest(server: CentrifugoServer, traffic: _Traffic) -> bool:
    """Return whether the last message of each channel is the status; each channel must be in order."""
    for instance_id, newest in (await traffic.statuses()).items():
        told = await server.history(status_channel(TENANT, instance_id))
        for before, after in itertools.pairwise(told):
            assert before["revision"] < after["revision"]
            assert after["previous_revision"] >= before["revision"]
        if not told or (told[-1]["revision"], told[-1]["status"]) != newest:
            return False
    return True


def _settings(server: CentrifugoServer, **settings: Any) -> dict[str, Any]:
    quick = {"health_interval_seconds": 0.2, "centrifugo_timeout_seconds": 0.5}
    return {**server.settings, **quick, "centrifugo_buffer": _BUFFER, **settings}


async def _is_well(health: HealthStub, name: str) -> bool:
    answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_the_server_is_away_for_minutes(postgres_server: Postgres, nats_url: str) -> None:
    """Ten minutes by the clock in `make test-faults`; killed and started again on the way, without its memory."""
    del postgres_server
    await asyncio.to_thread(centrifugo_binary)
    process = psutil.Process()
    async with (
        centrifugo_server() as server,
        status_service(nats_url, **_settings(server)) as service,
        grpc.aio.insecure_channel(service.app.server.address) as channel,
    ):
        health = HealthStub(channel)
        traffic = await _traffic(service)
        await eventually(lambda: _has_newest(server, traffic))
        await server.kill()
        with capture_logs() as log:
            began = time.monotonic()
            used = most = 0
            while (elapsed := time.monotonic() - began) < _SECONDS or traffic.made < 2 * _BUFFER:
                await traffic.change()
                # A pool, a cache or a code path is used for the first time in the first tenth.
                used = used or (process.memory_info().rss if elapsed > _SECONDS / 10 else 0)
                most = max(most, process.memory_info().rss)
                ahead = traffic.made / _CHANGES_PER_SECOND - (time.monotonic() - began)
                await asyncio.sleep(max(0.0, ahead))  # the rate of changes
            assert not await _is_well(health, "dependency/centrifugo")
            assert await _is_well(health, "")
            # Beside the buffer one batch may be with the adapter.
            assert sum(isinstance(each, Publication) for each in gc.get_objects()) <= _BUFFER + BATCH
            await server.start()
            await eventually(lambda: _has_newest(server, traffic), PATIENCE)
            await eventually(lambda: _is_well(health, "dependency/centrifugo"))
            dropped = await eventually(
                lambda: [each for each in log if each["event"] == "live messages were dropped"]
            )
    assert most - used < _GROWTH
    assert traffic.made - _BUFFER - _INSTANCES <= dropped[-1]["since_start"] <= traffic.made
    assert sum(each["count"] for each in dropped) == dropped[-1]["since_start"]
    print(f"{traffic.made} changes, {dropped[-1]['since_start']} dropped, {(most - used) / _MIB:.1f} MiB")  # noqa: T201 - a measurement


@pytest.mark.parametrize("fault", ["cut", "stall", "deafen"])
async def test_the_network_to_the_server_breaks_and_heals(
    postgres_server: Postgres, nats_url: str, fault: str
) -> None:
    del postgres_server
    await asyncio.to_thread(centrifugo_binary)
    async with (
        centrifugo_server() as server,
        Proxy(server.url) as proxy,
        status_service(nats_url, **_settings(server, centrifugo_url=proxy.url)) as service,
        grpc.aio.insecure_channel(service.app.server.address) as channel,
    ):
        health = HealthStub(channel)
        traffic = await _traffic(service)
        await eventually(lambda: _has_newest(server, traffic))
        getattr(proxy, fault)()
        for _ in range(20):
            await traffic.change()

        async def is_told() -> bool:
            return not await _is_well(health, "dependency/centrifugo")

        await eventually(is_told)
        assert await _is_well(health, "")
        proxy.heal()
        await eventually(lambda: _has_newest(server, traffic))
        await eventually(lambda: _is_well(health, "dependency/centrifugo"))
