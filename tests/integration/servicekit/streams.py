"""Looking into streams and feeding them, past the kit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from google.protobuf.wrappers_pb2 import StringValue
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from servicekit.events import Event, headers_of
from servicekit.ids import new_id


@asynccontextmanager
async def jetstream(url: str) -> AsyncIterator[JetStreamContext]:
    """Yield the JetStream API over a connection of the test's own."""
    client = await nats.connect(url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def count(url: str, stream: str) -> int:
    """Return how many messages a stream holds; none where there is no stream."""
    async with jetstream(url) as api:
        try:
            return (await api.stream_info(stream)).state.messages
        except NotFoundError:
            return 0


async def fetch_all(url: str, stream: str) -> list[Msg]:
    """Return all messages of a stream, in its order."""
    async with jetstream(url) as api:
        messages = (await api.stream_info(stream)).state.messages
        subscription = await api.pull_subscribe("", stream=stream, durable=f"test-{new_id()}")
        found: list[Msg] = []
        while len(found) < messages:
            found += await subscription.fetch(messages - len(found), timeout=5)
        return found


async def texts(url: str, stream: str) -> list[str]:
    """Return the texts of a stream of StringValue events, in its order."""
    return [StringValue.FromString(message.data).value for message in await fetch_all(url, stream)]


async def send(api: JetStreamContext, *events: Event, message_id: str | None = None) -> None:
    """Publish events as the relay would; a message id of its own defeats the broker's deduplication."""
    for event in events:
        headers = headers_of(event)
        if message_id is not None:
            headers["Nats-Msg-Id"] = message_id
        await api.publish(event.subject, event.payload, headers=headers)
