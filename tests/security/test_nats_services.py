"""Each service can do its part with its own login, and instance-service keeps the streams of tenants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from devstack import nats as embedded
from devstack.nats_accounts import LOGINS
from devstack.state import State
from optaic.rules.events import STREAMS
from servicekit import tenant_streams
from servicekit.broker import Broker as ServiceBroker
from servicekit.broker import LiveMessage
from servicekit.dead_letters import replay_subject
from servicekit.durables import Durable
from servicekit.pull import pulling
from servicekit.settings import ServiceSettings
from servicekit.tenant_streams import TENANT_STREAM, TenantStreams
from support.nats_logins import TENANTS, Broker, create_streams, nats_with_accounts
from support.polling import eventually


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    state = State(tmp_path)
    state.create()
    async with nats_with_accounts(state) as broker:
        yield broker


def connect(broker: Broker, service: str) -> ServiceBroker:
    url = embedded.make_url(broker.port, service, broker.passwords[f"nats_{service}"])
    unused = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    settings = ServiceSettings(
        database_url=unused, database_owner_url=unused, database_infra_url=unused, nats_url=url
    )
    stream = LOGINS[service].stream
    return ServiceBroker(settings, {stream: STREAMS[stream]}, f"{service}-service")


@pytest.mark.parametrize("service", sorted(LOGINS))
async def test_a_services_login_suffices_for_its_part(broker: Broker, service: str) -> None:
    await create_streams(broker)
    login = LOGINS[service]
    own = connect(broker, service)

    async def hear(_: LiveMessage) -> None:
        """Ignore what is heard."""

    for topic in login.hears:
        own.listen_live(f"optaic-compare.{topic}", hear, queue=service)
    with capture_logs() as logs:
        await asyncio.wait_for(own.ready(), 10)
        async with own.channel() as channel:
            subject = STREAMS[login.stream][0].replace("*", "acme").replace(">", "x.1")
            assert await channel.publish([(subject, b"event", {"Nats-Msg-Id": "1"})]) == [True]
        for consumer, stream in login.consumers.items():
            source = STREAMS[stream][0].replace("*", "acme").replace(">", "y.1")
            async with broker.login("admin") as admin:
                await admin.jetstream(timeout=5).publish(source, b"event")
            durable = Durable(stream, consumer, STREAMS[stream])
            await durable.ensure(own.client)
            await own.client.subscribe(replay_subject(consumer), queue=consumer)
            async with pulling(own.client, stream, consumer, 10) as pull:
                messages = await pull.next_batch()  # as many as consumers of this stream were looked at
                assert messages
                for message in messages:
                    await message.ack_sync(timeout=5)
            letter = await own.jetstream.publish(f"optaic-dead.{consumer}.{source}", b"letter")
            assert (await own.jetstream.get_msg("DEAD_LETTERS", letter.seq)).data == b"letter"
        for topic in login.says:
            await own.publish_live(f"optaic-compare.{topic.replace('*', 'acme')}", b"")
        await own.client.flush()
    await own.close()
    assert [entry for entry in logs if entry["log_level"] != "info"] == []


async def test_instance_service_creates_the_streams_of_tenants_and_restores_altered_ones(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_streams, "_INTERVAL", 0.1)
    monkeypatch.setattr(tenant_streams, "_FIRST_PATIENCE", 0.5)
    own = connect(broker, "instance")
    with capture_logs() as logs:
        keeping = asyncio.create_task(TenantStreams(own, [*TENANTS, "unknown"], list(STREAMS)).run())
        async with broker.login("admin-acme") as admin, broker.login("run") as run:
            jetstream = admin.jetstream(timeout=5)

            async def sources() -> int:
                answer = json.loads(
                    (await admin.request(f"$JS.API.STREAM.INFO.{TENANT_STREAM}", timeout=5)).data
                )
                return len(answer["config"].get("sources", [])) if "error" not in answer else -1

            await eventually(lambda: _equals(sources, len(STREAMS)))
            altered = {"name": TENANT_STREAM, "max_age": 1_000_000_000}
            await admin.request(
                f"$JS.API.STREAM.UPDATE.{TENANT_STREAM}", json.dumps(altered).encode(), timeout=5
            )
            await eventually(lambda: _equals(sources, len(STREAMS)))
            await jetstream.delete_stream(TENANT_STREAM)
            await eventually(lambda: _equals(sources, len(STREAMS)))
            await run.jetstream(timeout=5).add_stream(name="RUN_EVENTS", subjects=list(STREAMS["RUN_EVENTS"]))
            await run.jetstream(timeout=5).publish("optaic.acme.run.v1.completed.1", b"event")

            async def stored() -> int:
                return (await jetstream.stream_info(TENANT_STREAM)).state.messages

            await eventually(lambda: _equals(stored, 1), 60)
        keeping.cancel()
    await own.close()
    said = [entry for entry in logs if entry.get("tenant_id") == "unknown"]
    assert len(said) == 1, "a tenant without an account is logged once"
    assert "devstack.nats_configuration" in said[0]["error"]


async def _equals(read: Callable[[], Awaitable[int]], expected: int) -> bool:
    return await read() == expected
