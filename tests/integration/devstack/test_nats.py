"""Who may publish and read what on the embedded NATS."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nats
import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy, StreamConfig

from devstack import nats as embedded
from devstack import ports
from devstack.processes import Process
from devstack.state import State
from support.broker import listen
from support.polling import eventually

RUN = "optaic.default.run.v1.completed.7"
INSTANCE = "optaic.default.instance.v1.created.7"


@dataclass
class Broker:
    """A server with the streams of instance-service and run-service and a message in each."""

    process: Process
    port: int
    passwords: dict[str, str]

    @asynccontextmanager
    async def login(self, user: str) -> AsyncIterator[Client]:
        """Connect as one of the users."""

        async def ignore(_: Exception) -> None:
            """A refusal is seen by the caller as a timeout."""

        url = embedded.make_url(self.port, user, self.passwords[f"nats_{user}"])
        client = await nats.connect(url, error_cb=ignore, allow_reconnect=False)
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture
async def broker(state: State) -> AsyncIterator[Broker]:
    port, monitor, passwords = ports.find_free(), ports.find_free(), state.secrets()
    process = Process(state, embedded.make_program(state, port, monitor, passwords))
    await process.start()
    await process.wait_ready(20)
    broker = Broker(process, port, passwords)
    for service, stream, subject in (("instance", "INSTANCE_EVENTS", INSTANCE), ("run", "RUN_EVENTS", RUN)):
        async with broker.login(service) as client:
            jetstream = client.jetstream(timeout=5)
            subjects = [f"optaic.*.{service}.v1.>"]
            await jetstream.add_stream(StreamConfig(name=stream, subjects=subjects))
            await jetstream.publish(subject, b"event")
    yield broker
    await process.stop(5)


async def refused(client: Client, subject: str) -> bool:
    try:
        await client.jetstream(timeout=0.5).publish(subject, b"forged")
    except (TimeoutError, nats.errors.Error):
        return True
    return False


async def test_a_service_publishes_its_own_subjects_only(broker: Broker) -> None:
    async with broker.login("run") as client:
        assert not await refused(client, RUN)
        assert await refused(client, INSTANCE)


async def test_a_service_reads_anothers_stream(broker: Broker) -> None:
    async with broker.login("run") as client:
        jetstream = client.jetstream(timeout=5)
        await jetstream.add_consumer(
            "INSTANCE_EVENTS", ConsumerConfig(durable_name="run-instance", filter_subjects=[INSTANCE])
        )
        subscription = await jetstream.pull_subscribe_bind(consumer="run-instance", stream="INSTANCE_EVENTS")
        (message,) = await subscription.fetch(1, timeout=5)
        await message.ack_sync(timeout=5)
        assert message.data == b"event"


async def test_a_service_can_neither_drop_nor_purge_a_stream(broker: Broker) -> None:
    async with broker.login("run") as client:
        jetstream = client.jetstream(timeout=0.5)
        for attempt in (jetstream.delete_stream("RUN_EVENTS"), jetstream.purge_stream("RUN_EVENTS")):
            with pytest.raises((TimeoutError, nats.errors.Error)):
                await attempt
        assert (await client.jetstream(timeout=5).stream_info("RUN_EVENTS")).state.messages == 1


@pytest.mark.parametrize("stream", ["INSTANCE_EVENTS", "RUN_EVENTS"])
async def test_the_subscriber_reads_history_and_what_follows(broker: Broker, stream: str) -> None:
    async with broker.login("subscriber") as reader, broker.login("run") as writer:
        jetstream = reader.jetstream(timeout=5)
        ordered = await jetstream.subscribe("optaic.>", stream=stream, ordered_consumer=True)
        assert (await ordered.next_msg(timeout=5)).data == b"event"
        pulled = await jetstream.pull_subscribe(
            "optaic.>", stream=stream, config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        )
        (message,) = await pulled.fetch(1, timeout=5)
        await message.ack_sync(timeout=5)
        plain = await listen(reader, "optaic.>")
        await writer.jetstream(timeout=5).publish(RUN, b"next")
        assert (await plain.next_msg(timeout=5)).data == b"next"


async def test_the_subscriber_hears_live_statuses(broker: Broker) -> None:
    async with broker.login("subscriber") as reader, broker.login("status") as writer:
        live = await listen(reader, "optaic-live.default.status.7")
        await writer.publish("optaic-live.default.status.7", b"READY")
        assert (await live.next_msg(timeout=5)).data == b"READY"


@pytest.mark.parametrize(
    "subject", [RUN, INSTANCE, "optaic-live.default.status.7", "optaic-dead.x", "anything.else"]
)
async def test_the_subscriber_publishes_nothing(broker: Broker, subject: str) -> None:
    async with broker.login("subscriber") as reader, broker.login("run") as other:
        heard = await listen(other, "optaic.>")
        assert await refused(reader, subject)
        await reader.publish(subject, b"forged")
        await reader.flush()
        with pytest.raises((TimeoutError, nats.errors.TimeoutError)):
            await heard.next_msg(timeout=0.2)


async def test_the_subscriber_cannot_touch_a_services_consumer(broker: Broker) -> None:
    name = "run-instance"
    async with broker.login("run") as owner:
        await owner.jetstream(timeout=5).add_consumer("INSTANCE_EVENTS", ConsumerConfig(durable_name=name))
    async with broker.login("subscriber") as reader:
        jetstream = reader.jetstream(timeout=0.5)
        attempts = (
            jetstream.delete_consumer("INSTANCE_EVENTS", name),
            jetstream.add_consumer("INSTANCE_EVENTS", ConsumerConfig(durable_name=name, max_deliver=1)),
            jetstream.add_consumer("INSTANCE_EVENTS", ConsumerConfig(name=name, max_deliver=1)),
        )
        for attempt in attempts:
            with pytest.raises((TimeoutError, nats.errors.Error)):
                await attempt
        stolen = await jetstream.pull_subscribe_bind(consumer=name, stream="INSTANCE_EVENTS")
        with pytest.raises((TimeoutError, nats.errors.Error)):
            await stolen.fetch(1, timeout=0.5)
    async with broker.login("run") as owner:
        info = await owner.jetstream(timeout=5).consumer_info("INSTANCE_EVENTS", name)
        assert (info.num_pending, info.config.max_deliver) == (1, -1)


_SAID = {  # in comparisons: what by whom
    "optaic-compare.default.instances.page": {"instance"},
    "optaic-compare.default.instances.wanted": {"lineage", "status"},
    "optaic-compare.default.runs.page": {"run"},
    "optaic-compare.default.runs.wanted": {"instance", "lineage"},
    "optaic-compare.default.flows.page": {"lineage"},
    "optaic-compare.default.flows.wanted": {"status"},
    "optaic-compare.now": {"instance"},
    "optaic-compare.ended": {"instance"},
}


@pytest.mark.parametrize("user", ["instance", "run", "lineage", "status", "subscriber"])
async def test_each_says_its_own_part_in_a_comparison_and_only_services_hear(
    broker: Broker, user: str
) -> None:
    async with broker.login(user) as client, broker.login("status") as other, broker.login("run") as hearing:
        heard = await listen(hearing, "optaic-compare.>")
        for subject in _SAID:
            await client.publish(subject, user.encode())
        await client.flush()
        found = set()
        while True:
            try:
                found.add((await heard.next_msg(timeout=0.3)).subject)
            except (TimeoutError, nats.errors.TimeoutError):
                break
        assert found == {subject for subject, users in _SAID.items() if user in users}
        if user == "subscriber":
            secret = await client.subscribe("optaic-compare.>")
            await client.flush()
            await other.publish("optaic-compare.default.flows.wanted", b"")
            await other.flush()
            with pytest.raises((TimeoutError, nats.errors.TimeoutError)):
                await secret.next_msg(timeout=0.3)


async def test_a_wrong_password_is_refused(broker: Broker) -> None:
    client = Client()
    url = embedded.make_url(broker.port, "subscriber", "wrong")
    with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
        await client.connect(url, allow_reconnect=False, max_reconnect_attempts=0)
    await client.close()


async def test_messages_survive_a_kill(broker: Broker) -> None:
    first = broker.process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: broker.process.pid not in {None, first} and broker.process.phase == "ready")
    async with broker.login("run") as client:
        assert (await client.jetstream(timeout=5).stream_info("RUN_EVENTS")).state.messages == 1
