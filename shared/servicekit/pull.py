"""Take batches from a durable pull consumer: all waiting messages at once, or the first one as soon as it comes.

The client's own `fetch` would hold a single message back until its batch is full. The caller acknowledges. An
unacknowledged message stays with the caller while the pull lasts; when the pull ends, the broker redelivers it at once.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

# After this the broker redelivers a message whose process has died.
ACK_WAIT = 5.0
_EXPIRES = 5.0
_HEARTBEAT = 1.0  # an idle broker sends this often; without it the request was lost
_SILENCE = 2.5 * _HEARTBEAT
_STATUS = "Status"
_ALIVE = "100"
_REQUEST_ENDED = {"404", "408"}  # no messages; expired


class PullError(ConnectionError):
    """The consumer no longer delivers: subscribe again."""


class Pull:
    """A pull subscription that keeps one request open at a time, which the broker fills as messages come."""

    def __init__(self, client: Client, stream: str, consumer: str, batch: int) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._batch = batch
        self.inbox = client.new_inbox()
        self._arrived: deque[Msg] = deque()  # at most what the open request allows, and heartbeats
        self._has_arrived = asyncio.Event()
        self._taken: list[Msg] = []
        self._open = 0  # messages that the open request still allows

    async def receive(self, message: Msg) -> None:
        """Take a message that the broker delivers to the inbox."""
        self._arrived.append(message)
        self._has_arrived.set()

    async def next_batch(self) -> list[Msg]:
        """Return at least one message, or none after a second or two.

        Raises:
            PullError: The consumer is gone, or the broker has forgotten the request.
            nats.errors.Error: The connection is gone.
        """
        if self._open <= 0:
            request = {
                "batch": self._batch,
                "expires": int(_EXPIRES * 1e9),
                "idle_heartbeat": int(_HEARTBEAT * 1e9),
            }
            await self._client.publish(self._subject, json.dumps(request).encode(), reply=self.inbox)
            self._open = self._batch
        self._taken = []
        try:
            async with asyncio.timeout(_SILENCE):
                await self._has_arrived.wait()
        except TimeoutError:
            raise PullError("the broker is silent") from None
        while self._arrived and len(self._taken) < self._batch:
            self._take(self._arrived.popleft())
        if not self._arrived:
            self._has_arrived.clear()
        return self._taken

    def _take(self, message: Msg) -> None:
        status = (message.headers or {}).get(_STATUS)
        if status is None:
            self._open -= 1
            self._taken.append(message)
        elif status in _REQUEST_ENDED:
            self._open = 0
        elif status != _ALIVE:
            raise PullError(f"the broker answers {status} {message.headers}")

    def _unacknowledged(self) -> list[Msg]:
        """Return the messages that are being applied or wait for it; status messages of the broker need no answer."""
        return [
            message for message in (*self._taken, *self._arrived) if message.reply and not message.is_acked
        ]

    async def keep(self) -> None:
        """Extend the broker's deadline for these messages regularly, as long as the work on them takes."""
        while True:
            await asyncio.sleep(ACK_WAIT / 3)
            with suppress(nats.errors.Error):  # the connection may be gone
                for message in self._unacknowledged():
                    if not message.is_acked:  # meanwhile
                        await message.in_progress()

    async def give_back(self) -> None:
        """Return messages that were not acknowledged, so that the broker redelivers them at once."""
        for message in self._unacknowledged():
            await message.nak()


@asynccontextmanager
async def pulling(client: Client, stream: str, consumer: str, batch: int) -> AsyncIterator[Pull]:
    """Open a pull on an existing consumer, which waits `ACK_WAIT` for acknowledgements."""
    pull = Pull(client, stream, consumer, batch)
    inbox = await client.subscribe(pull.inbox, cb=pull.receive)
    keeping = asyncio.create_task(pull.keep())
    try:
        yield pull
    finally:
        keeping.cancel()
        with suppress(nats.errors.Error):
            await inbox.unsubscribe()
            await pull.give_back()
