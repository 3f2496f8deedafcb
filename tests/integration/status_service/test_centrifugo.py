"""status-service publishes its statuses on the channels of Centrifugo, here the fake one, and tells when it cannot."""

from __future__ import annotations

import itertools
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from devstack.postgres import Postgres
from optaic.instance.v1 import instance_events_pb2
from optaic.rules.realtime import known_status_channel, status_channel
from servicekit.ids import new_id
from support.centrifugo import API_KEY
from support.fake_centrifugo import FakeCentrifugo
from support.polling import eventually
from support.status_service import (
    TENANT,
    RunningStatusService,
    flow_change,
    flow_statuses,
    instance,
    status_service,
)


def _settings(url: str, **settings: Any) -> dict[str, Any]:
    return {"centrifugo_url": url, "centrifugo_api_key": API_KEY, "health_interval_seconds": 0.1, **settings}


async def _live(service: RunningStatusService, instance_id: str) -> None:
    """Create an instance, run its flow, and delete it."""
    for message in (
        instance_events_pb2.InstanceCreated(instance=instance(instance_id)),
        flow_statuses(1, flow_change(instance_id, "RUNNING", run_number=1)),
        flow_statuses(2, flow_change(instance_id, "READY", version=1, run_number=1)),
        instance_events_pb2.InstanceDeleted(instance=instance(instance_id, revision=2)),
    ):
        await service.applied(*await service.publish(message))  # the streams have no order between them


async def test_each_change_goes_to_the_instances_channels(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    instance_id = new_id()
    async with (
        FakeCentrifugo().serve() as centrifugo,
        status_service(nats_url, **_settings(centrifugo.url)) as service,
    ):
        await _live(service, instance_id)
        channel = status_channel(TENANT, instance_id)

        async def ended() -> list[dict[str, Any]]:
            found = await centrifugo.history(channel)
            return found if found and found[-1].get("is_deleted") else []

        data = await eventually(ended)
        assert await centrifugo.history(known_status_channel(instance_id)) == data
    words = [each["status"] for each in data]
    assert words[0] == "not_initialized"
    assert words[-2:] == ["ready", "ready"]
    assert data[-2]["last_run_id"] == "00000000-0000-0000-0000-000000000001"
    assert data[0].keys() == {"status", "last_run_id", "revision", "previous_revision", "causes", "time"}
    assert data[0]["previous_revision"] == 0
    for before, after in itertools.pairwise(data):
        assert after["previous_revision"] == before["revision"] < after["revision"]


async def test_with_other_tenants_only_the_channel_with_the_tenant_is_used(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    instance_id = new_id()
    async with (
        FakeCentrifugo().serve() as centrifugo,
        status_service(nats_url, **_settings(centrifugo.url, tenants=("default", "acme"))) as service,
    ):
        await _live(service, instance_id)
        await eventually(lambda: centrifugo.history(status_channel(TENANT, instance_id)))
        assert await centrifugo.history(known_status_channel(instance_id)) == []


async def test_while_centrifugo_is_away_health_says_so_and_the_service_serves(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    instance_id = new_id()
    async with (
        FakeCentrifugo().serve() as centrifugo,
        status_service(nats_url, **_settings(centrifugo.url)) as service,
        grpc.aio.insecure_channel(service.app.server.address) as channel,
    ):
        health = HealthStub(channel)

        async def is_well(name: str) -> bool:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        centrifugo.broken = 10**6
        await _live(service, instance_id)

        async def is_told() -> bool:
            return not await is_well("dependency/centrifugo")

        await eventually(is_told)
        assert await is_well("")
        centrifugo.broken = 0
        await eventually(lambda: centrifugo.history(status_channel(TENANT, instance_id)))
        await eventually(lambda: is_well("dependency/centrifugo"))


async def test_a_service_that_stops_sends_what_waits(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    instance_id = new_id()
    async with FakeCentrifugo().serve() as centrifugo:
        centrifugo.broken = 10**6
        async with status_service(nats_url, **_settings(centrifugo.url)) as service:
            await service.publish(instance_events_pb2.InstanceCreated(instance=instance(instance_id)))
            await eventually(lambda: centrifugo.failed)
            centrifugo.broken = 0
        (told,) = await centrifugo.history(status_channel(TENANT, instance_id))
    assert told["status"] == "not_initialized"
