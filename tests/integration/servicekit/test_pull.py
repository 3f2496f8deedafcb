"""A batch belongs to who took it for as long as it is worked on, and to the next one as soon as that ends."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from servicekit import pull as pull_module
from servicekit.pull import Pull, PullError, pulling
from support.broker import listen
from support.polling import eventually

STREAM, CONSUMER = "NUMBERS", "reader"


@asynccontextmanager
async def numbers(url: str, ack_wait: float) -> AsyncIterator[Client]:
    """A connection to a broker with a stream and its consumer."""
    client = await nats.connect(url)
    try:
        api = client.jetstream()
        await api.add_stream(name=STREAM, subjects=["numbers"])
        config = ConsumerConfig(durable_name=CONSUMER, ack_policy=AckPolicy.EXPLICIT, ack_wait=ack_wait)
        await api.add_consumer(STREAM, config)
        yield client
    finally:
        await client.close()


async def publish(client: Client, *numbers: int) -> None:
    for number in numbers:
        await client.jetstream().publish("numbers", str(number).encode())


async def take(pull: Pull, count: int) -> list[int]:
    """Acknowledge that many messages."""
    taken: list[int] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            for message in await pull.next_batch():
                taken.append(int(message.data))
                await message.ack()
    return taken


async def test_an_unacknowledged_message_is_delivered_again_at_once(nats_url: str) -> None:
    async with numbers(nats_url, ack_wait=3600) as client:

        async def all_are_delivered() -> bool:
            info = await client.jetstream().consumer_info(STREAM, CONSUMER)
            return bool(info.num_ack_pending == 3)

        async with pulling(client, STREAM, CONSUMER, batch=8) as pull:
            await publish(client, 1)
            assert [message.data for message in await pull.next_batch()] == [b"1"]
            await publish(client, 2, 3)  # these arrive while the first is worked on
            await eventually(all_are_delivered)
        async with pulling(client, STREAM, CONSUMER, batch=8) as pull:
            assert sorted(await take(pull, 3)) == [1, 2, 3]


async def test_a_message_in_progress_is_not_delivered_to_another_consumer(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ack_wait = 2.0
    monkeypatch.setattr(pull_module, "ACK_WAIT", ack_wait)
    said: Counter[bytes] = Counter()

    async def listener(message: Msg) -> None:
        said[message.data] += 1

    async with numbers(nats_url, ack_wait) as client:
        await listen(client, f"$JS.ACK.{STREAM}.>", cb=listener)
        async with pulling(client, STREAM, CONSUMER, batch=8) as pull:
            await publish(client, 1)
            (message,) = await pull.next_batch()
            await publish(client, 2, 3)  # these wait until the first is done
            await eventually(lambda: said[b"+WPI"] >= 12)  # longer than the broker waits
            info = await client.jetstream().consumer_info(STREAM, CONSUMER)
            assert (info.num_ack_pending, info.num_redelivered) == (3, 0)
            await message.ack()
            assert await take(pull, 2) == [2, 3]
            await eventually(lambda: said[b""] == 3)
            assert said.keys() == {b"+WPI", b""}


async def test_a_pull_request_lost_by_the_broker_ends_the_pull(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "_SILENCE", 0.2)  # heartbeats come later than that
    async with numbers(nats_url, ack_wait=3600) as client, pulling(client, STREAM, CONSUMER, batch=8) as pull:
        with pytest.raises(PullError, match="silent"):
            await pull.next_batch()
