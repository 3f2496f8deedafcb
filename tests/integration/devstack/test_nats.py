"""Who may publish and read what on the embedded NATS."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy, StreamConfig

from devstack import nats as embedded
from devstack.nats_accounts import SERVICES_ACCOUNT, make_accounts
from devstack.state import State
from servicekit import dead_letters
from servicekit.broker import DEAD_LETTERS, connected
from servicekit.dead_letters import Replay
from servicekit.tenant_streams import TENANT_STREAM
from support.broker import listen
from support.control_plane import CONSUMERS
from support.nats_logins import Broker, create_streams, nats_with_accounts
from support.polling import eventually

RUN = "optaic.default.run.v1.completed.7"
INSTANCE = "optaic.default.instance.v1.created.7"


@pytest.fixture
async def broker(state: State) -> AsyncIterator[Broker]:
    async with nats_with_accounts(state) as broker:
        await create_streams(broker)
        for service, subject in (("instance", INSTANCE), ("run", RUN)):
            async with broker.login(service) as client:
                await client.jetstream(timeout=5).publish(subject, b"event")
        yield broker


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


async def test_the_subscriber_reads_history_and_later_events(broker: Broker) -> None:
    async with broker.login("subscriber") as reader, broker.login("run") as writer:
        jetstream = reader.jetstream(timeout=5)
        ordered = await jetstream.subscribe("optaic.>", stream=TENANT_STREAM, ordered_consumer=True)
        assert {(await ordered.next_msg(timeout=15)).subject for _ in range(2)} == {RUN, INSTANCE}
        pulled = await jetstream.pull_subscribe(
            "optaic.>", stream=TENANT_STREAM, config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        )
        (message,) = await pulled.fetch(1, timeout=5)
        await message.ack_sync(timeout=5)
        assert message.data == b"event"
        plain = await listen(reader, "optaic.>")
        await writer.jetstream(timeout=5).publish(RUN, b"next")
        assert (await plain.next_msg(timeout=5)).data == b"next"
        assert (await ordered.next_msg(timeout=5)).data == b"next"


async def test_the_subscriber_receives_live_statuses(broker: Broker) -> None:
    async with broker.login("subscriber") as reader, broker.login("status") as writer:
        live = await listen(reader, "optaic-live.default.status.7")
        await writer.publish("optaic-live.default.status.7", b"READY")
        assert (await live.next_msg(timeout=5)).data == b"READY"


@pytest.mark.parametrize(
    "subject", [RUN, INSTANCE, "optaic-live.default.status.7", "optaic-dead.x", "anything.else"]
)
async def test_the_subscriber_publishes_nothing(broker: Broker, subject: str) -> None:
    async with broker.login("subscriber") as reader, broker.login("admin") as other:
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
    "optaic-compare.default.role_bindings.page": {"instance"},
    "optaic-compare.default.role_bindings.wanted": {"lineage", "run", "status"},
    "optaic-compare.default.runs.page": {"run"},
    "optaic-compare.default.runs.wanted": {"instance", "lineage"},
    "optaic-compare.default.flows.page": {"lineage"},
    "optaic-compare.default.flows.wanted": {"status"},
    "optaic-compare.now": {"instance"},
    "optaic-compare.ended": {"instance"},
}


@pytest.mark.parametrize("user", ["instance", "run", "lineage", "status", "subscriber", "operator"])
async def test_each_service_may_publish_only_its_part_of_a_comparison_and_only_services_receive_it(
    broker: Broker, user: str
) -> None:
    async with (
        broker.login(user) as client,
        broker.login("status") as other,
        broker.login("admin") as hearing,
    ):
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


DEAD = "optaic-dead.run-instance.optaic.default.instance.v1.created.7"


async def keep_dead_letter(broker: Broker) -> None:
    async with broker.login("run") as client:
        jetstream = client.jetstream(timeout=5)
        await jetstream.add_stream(StreamConfig(name=DEAD_LETTERS, subjects=["optaic-dead.>"]))
        headers = {"optaic-consumer": "run-instance", "optaic-stream": "INSTANCE_EVENTS"}
        await jetstream.publish(DEAD, b"event", headers=headers)


@asynccontextmanager
async def operating(broker: Broker) -> AsyncIterator[Client]:
    url = embedded.make_url(broker.port, "operator", broker.passwords["nats_operator"])
    async with connected(url, dead_letters.INBOX) as (client, _):
        yield client


async def test_an_operator_reads_dead_letters_and_has_them_replayed(broker: Broker) -> None:
    await keep_dead_letter(broker)
    heard = []
    async with broker.login("run") as run, operating(broker) as operator:

        async def answer(request: Msg) -> None:
            heard.append(request.data)
            await request.respond(Replay("applied").encode())

        await listen(run, dead_letters.replay_subject("run-instance"), queue="run-instance", cb=answer)
        (letter,) = [each async for each in dead_letters.list_dead_letters(operator.jetstream())]
        assert letter.payload == b"event"
        assert await dead_letters.request_replay(operator, letter, 5) == Replay("applied")
    assert heard == [b"1"]


async def test_a_service_answers_in_an_operators_inbox_and_nowhere_else(broker: Broker) -> None:
    async with broker.login("run") as run, operating(broker) as operator, broker.login("admin") as other:

        async def answer(request: Msg) -> None:
            await request.respond(b"forged")

        await listen(run, dead_letters.replay_subject("run-instance"), queue="run-instance", cb=answer)
        heard = await listen(other, "optaic.>")
        await operator.publish(dead_letters.replay_subject("run-instance"), b"1", reply=INSTANCE)
        answered = await operator.request(dead_letters.replay_subject("run-instance"), b"1", timeout=5)
        assert answered.data == b"forged"
        await run.flush()
        assert heard.pending_msgs == 0


async def test_a_service_stores_dead_letters_of_its_own_consumers_only(broker: Broker) -> None:
    await keep_dead_letter(broker)
    async with broker.login("status") as client:
        assert await refused(client, DEAD)
        assert await refused(client, DEAD.replace("run-instance", "instance-run-events"))
        assert not await refused(client, DEAD.replace("run-instance", "status-instance-events"))


async def test_an_operator_can_do_nothing_else(broker: Broker) -> None:
    await keep_dead_letter(broker)
    async with operating(broker) as operator, broker.login("admin") as other:
        heard = await listen(other, "optaic.>")
        jetstream = operator.jetstream(timeout=0.5)
        for subject in (RUN, INSTANCE, DEAD, "optaic-live.default.status.7", "optaic-compare.now"):
            assert await refused(operator, subject)
        attempts = (
            jetstream.delete_msg("RUN_EVENTS", 1),
            jetstream.purge_stream(DEAD_LETTERS),
            jetstream.get_msg("RUN_EVENTS", 1),
            jetstream.stream_info(DEAD_LETTERS),
            jetstream.add_consumer(DEAD_LETTERS, ConsumerConfig(durable_name="mine")),
        )
        for attempt in attempts:
            with pytest.raises((TimeoutError, nats.errors.Error)):
                await attempt
        events = await operator.subscribe("optaic.>")
        await other.jetstream(timeout=5).publish(RUN, b"event")
        with pytest.raises((TimeoutError, nats.errors.TimeoutError)):
            await events.next_msg(timeout=0.2)
        assert (await heard.next_msg(timeout=5)).data == b"event", "the service's own, and nothing before it"
    async with broker.login("run") as run:
        assert (await run.jetstream(timeout=5).stream_info(DEAD_LETTERS)).state.messages == 1


def test_each_consumer_may_be_asked_for_a_replay_by_the_service_that_has_it() -> None:
    users = make_accounts(["default"], lambda _: "")[SERVICES_ACCOUNT]["users"]
    hearing = {
        subject.removeprefix("optaic-replay."): user["user"]
        for user in users
        for subject in user["permissions"]["subscribe"]["allow"]
        if subject.startswith("optaic-replay.")
    }
    names = {name for consumers in CONSUMERS.values() for name in consumers}
    assert hearing == {name: name.partition("-")[0] for name in names}


@pytest.mark.parametrize("user", ["subscriber", "lineage"])
async def test_only_the_consumer_and_the_operator_see_a_replay(broker: Broker, user: str) -> None:
    async with broker.login(user) as client, broker.login("run") as run, operating(broker) as operator:
        asked = await listen(run, dead_letters.replay_subject("run-instance"))
        overheard = [
            await client.subscribe(subject)
            for subject in (
                "optaic-replay.>",
                "optaic-replay.run-instance",
                f"{dead_letters.INBOX}.>",
            )
        ]
        await client.flush()
        await client.publish("optaic-replay.run-instance", b"1")
        await client.flush()
        with pytest.raises((TimeoutError, nats.errors.TimeoutError)):
            await asked.next_msg(timeout=0.3)
        asking = asyncio.create_task(operator.request("optaic-replay.run-instance", b"2", timeout=5))
        request = await asked.next_msg(timeout=5)
        await request.respond(b"answer")
        assert (await asking).data == b"answer"
        for each in overheard:
            with pytest.raises((TimeoutError, nats.errors.TimeoutError)):
                await each.next_msg(timeout=0.2)


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
