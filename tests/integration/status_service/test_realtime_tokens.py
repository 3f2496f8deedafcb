"""Tokens permit their caller, on the real Centrifugo, to subscribe to what it may read, and to nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import grpc
import pytest
import pytest_asyncio

from devstack.postgres import Postgres
from optaic.instance.v1 import instance_events_pb2
from optaic.rules.realtime import status_channel
from optaic.status.v1 import status_service_pb2 as api
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from support.centrifugo import TOKEN_KEY, CentrifugoClient, CentrifugoRefusedError
from support.identities import caller
from support.polling import eventually
from support.realtime import ME, World, realtime_world, signed
from support.status_service import TENANT, instance, status_service

_PERMISSION_DENIED = 103
_TOKEN_EXPIRED = 109
_INVALID_TOKEN = 3500
_BAD_REQUEST = 3501
_SUBSCRIPTION_EXPIRED = 2501


@pytest_asyncio.fixture
async def world(postgres_server: Postgres, nats_url: str) -> AsyncIterator[World]:
    del postgres_server
    async with realtime_world(nats_url) as running:
        yield running


async def _refusal(client: CentrifugoClient, channel: str, token: str) -> int:
    with pytest.raises(CentrifugoRefusedError) as refused:
        await client.subscribe(channel, token)
    return refused.value.code


async def _check_refused(world: World, connection_token: str, channel: str, token: str) -> None:
    """Check that a subscription is refused, or that the server even ends the connection."""
    async with world.server.connect(connection_token) as client:
        assert await _refusal(client, channel, token) in {_PERMISSION_DENIED, _INVALID_TOKEN}


async def test_a_subscriber_sees_each_change(world: World) -> None:
    tokens = await world.tokens()
    status, alerts = tokens.subscriptions
    assert (status.topic, alerts.topic) == (api.REALTIME_TOPIC_STATUS, api.REALTIME_TOPIC_ALERTS)
    assert status.channel == status_channel(TENANT, world.instance_id)
    assert status.instance_id == alerts.instance_id == world.instance_id
    async with world.server.connect(tokens.connection_token) as client:
        await client.subscribe(status.channel, status.token)
        await client.subscribe(alerts.channel, alerts.token)
        await world.change(1, "RUNNING", 1)
        assert (await client.next_data())["status"] == "running"
        await world.change(2, "READY", 1)
        assert (await client.next_data())["status"] == "ready"


async def test_the_channel_without_a_tenant_has_tokens_where_default_is_the_one_tenant(world: World) -> None:
    tokens = await world.tokens(without_tenant=True)
    status = tokens.subscriptions[0]
    assert status.channel == f"instance:{world.instance_id}:status"
    async with world.server.connect(tokens.connection_token) as client:
        await client.subscribe(status.channel, status.token)
        await world.change(1, "RUNNING", 1)
        assert (await client.next_data())["status"] == "running"


async def test_the_newest_run_of_a_flow_has_a_channel(world: World) -> None:
    await world.change(1, "RUNNING", 7)
    run_id = "00000000-0000-0000-0000-000000000007"
    *_, progress = (await world.tokens(run_ids=[run_id])).subscriptions
    assert progress.topic == api.REALTIME_TOPIC_PROGRESS
    assert (progress.run_id, progress.instance_id) == (run_id, "")
    assert progress.channel == f"run:{TENANT}.{run_id}:progress"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.tokens(run_ids=[run_id, new_id()])
    error = from_rpc_error(refused.value)
    assert error.reason == "RUN_NOT_NEWEST"
    assert run_id not in error.message


async def test_an_instance_of_another_tenant_does_not_exist(world: World) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.tokens(caller("viewer", "acme"))
    assert from_rpc_error(refused.value).reason == "INSTANCE_NOT_FOUND"


async def test_the_server_refuses_foreign_and_wildcard_channels(world: World) -> None:
    tokens = await world.tokens()
    mine = tokens.subscriptions[0]
    for channel in (
        status_channel(TENANT, new_id()),
        status_channel("acme", world.instance_id),
        f"instance:{TENANT}.*:status",
        f"instance:{TENANT}.{world.instance_id}:*",
        f"instance:{world.instance_id}:status",
    ):
        await _check_refused(world, tokens.connection_token, channel, mine.token)
        await _check_refused(world, tokens.connection_token, channel, "")
        await _check_refused(world, tokens.connection_token, channel, signed(channel="instance:*"))
    await _check_refused(world, tokens.connection_token, mine.channel, tokens.connection_token)
    await _check_refused(world, tokens.connection_token, mine.channel, "")
    async with world.server.connect(tokens.connection_token) as client:
        await client.subscribe(mine.channel, mine.token)


async def test_a_client_publishes_and_reads_nothing_by_itself(world: World) -> None:
    tokens = await world.tokens()
    mine = tokens.subscriptions[0]
    async with world.server.connect(tokens.connection_token) as client:
        await client.subscribe(mine.channel, mine.token)
        for method in ("publish", "history", "presence"):
            with pytest.raises(CentrifugoRefusedError) as refused:
                await client.call(method, {"channel": mine.channel, "data": {}})
            assert refused.value.code in {_PERMISSION_DENIED, 108}


async def test_another_callers_token_for_a_channel_is_refused(world: World) -> None:
    tokens, others = await world.tokens(), await world.tokens(caller("maintainer"))
    theirs = others.subscriptions[0]
    await _check_refused(world, tokens.connection_token, theirs.channel, theirs.token)


async def test_expired_and_forged_tokens_are_refused(world: World) -> None:
    channel = status_channel(TENANT, world.instance_id)
    past = int(datetime.now(UTC).timestamp()) - 10
    async with world.server.connect((await world.tokens()).connection_token) as client:
        assert await _refusal(client, channel, signed(channel=channel, exp=past)) == _TOKEN_EXPIRED
    for forged in (
        signed("another-key-of-at-least-32-characters", channel=channel),
        signed(channel=channel, aud="another"),
        signed(channel=channel, iss="another"),
    ):
        await _check_refused(world, (await world.tokens()).connection_token, channel, forged)
    for token, code in (
        (signed(exp=past), _TOKEN_EXPIRED),
        (signed("another-key-of-at-least-32-characters"), _INVALID_TOKEN),
        (signed(channel=channel), _INVALID_TOKEN),
        ("", _BAD_REQUEST),
    ):
        with pytest.raises(CentrifugoRefusedError) as refused:
            async with world.server.connect(token):
                pass
        assert refused.value.code == code


async def test_a_subscription_ends_soon_after_its_token(world: World) -> None:
    channel = status_channel(TENANT, world.instance_id)
    soon = int(datetime.now(UTC).timestamp()) + 2
    async with world.server.connect((await world.tokens()).connection_token) as client:
        await client.subscribe(channel, signed(channel=channel, exp=soon))
        while True:
            push = await client.next_push()
            if "unsubscribe" in push:
                break
        assert push["unsubscribe"]["code"] == _SUBSCRIPTION_EXPIRED


async def test_a_subscriber_that_was_away_gets_what_it_missed_or_is_told(world: World) -> None:
    tokens = await world.tokens()
    status = tokens.subscriptions[0]
    async with world.server.connect(tokens.connection_token) as client:
        position = await client.subscribe(status.channel, status.token)
        await world.change(1, "RUNNING", 1)
        push = await client.next_push()
        seen = push["pub"]["data"]["revision"]
        position["offset"] = push["pub"]["offset"]
    await world.change(2, "READY", 1)
    await world.change(3, "RUNNING", 2)
    await eventually(lambda: _has(world, status.channel, 4))
    since = {"offset": position["offset"], "epoch": position["epoch"]}
    async with world.server.connect(tokens.connection_token) as client:
        answer = await client.subscribe(status.channel, status.token, **since)
        missed = [each["data"] for each in answer["publications"]]
        assert answer["recovered"]
        assert [each["status"] for each in missed] == ["ready", "running"]
        assert missed[0]["previous_revision"] == seen
    await world.server.kill()
    await world.server.start()
    await world.change(4, "READY", 2)
    await eventually(lambda: _has(world, status.channel, 1))
    async with world.server.connect(tokens.connection_token) as client:
        answer = await client.subscribe(status.channel, status.token, **since)
        assert not answer.get("recovered")
        assert answer["epoch"] != since["epoch"]


async def _has(world: World, channel: str, count: int) -> bool:
    return len(await world.server.history(channel)) == count


async def test_without_a_key_there_are_no_tokens(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with status_service(nats_url) as service:
        instance_id = new_id()
        created = instance_events_pb2.InstanceCreated(instance=instance(instance_id))
        await service.applied(*await service.publish(created))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.stub.CreateRealtimeToken(
                api.CreateRealtimeTokenRequest(instance_ids=[instance_id]), metadata=ME
            )
        assert from_rpc_error(refused.value).reason == "REALTIME_NOT_CONFIGURED"


async def test_an_installation_of_other_tenants_has_no_channels_without_one(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    settings = {"centrifugo_token_key": TOKEN_KEY, "tenants": ("default", "acme")}
    async with status_service(nats_url, **settings) as service:
        instance_id = new_id()
        created = instance_events_pb2.InstanceCreated(instance=instance(instance_id))
        await service.applied(*await service.publish(created))
        request = api.CreateRealtimeTokenRequest(instance_ids=[instance_id], without_tenant=True)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.stub.CreateRealtimeToken(request, metadata=ME)
        assert from_rpc_error(refused.value).reason == "CHANNELS_NAME_TENANTS"
