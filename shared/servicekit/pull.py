"""Takes batches from a durable pull consumer: what is there at once, else the first message the moment it comes.

It acknowledges nothing; the client's own `fetch` would hold a lone message back until its batch is full.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

_EXPIRES = 5.0
_SLACK = 2.0  # a request that is this late was lost
_STATUS = "Status"
_REQUEST_ENDED = {"404", "408"}  # no messages; expired


class PullError(ConnectionError):
    """The consumer does not deliver any more: subscribe again."""


class Pull:
    """One request is open at a time; the broker fills it as messages come."""

    def __init__(self, client: Client, inbox: Subscription, stream: str, consumer: str, batch: int) -> None:
        self._client = client
        self._inbox = inbox
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._batch = batch
        self._open = 0  # messages that the open request still allows

    async def next_batch(self) -> list[Msg]:
        """Return at least one message, or none after some seconds.

        Raises:
            PullError: The consumer is gone.
            nats.errors.Error: The connection is gone.
        """
        if self._open <= 0:
            request = {"batch": self._batch, "expires": int(_EXPIRES * 1e9)}
            await self._client.publish(self._subject, json.dumps(request).encode(), reply=self._inbox.subject)
            self._open = self._batch
        messages: list[Msg] = []
        try:
            self._take(await self._inbox.next_msg(timeout=_EXPIRES + _SLACK), messages)
            while self._inbox.pending_msgs and len(messages) < self._batch:
                self._take(await self._inbox.next_msg(timeout=_SLACK), messages)
        except nats.errors.TimeoutError:
            self._open = 0
        return messages

    def _take(self, message: Msg, messages: list[Msg]) -> None:
        status = (message.headers or {}).get(_STATUS)
        if status is None:
            self._open -= 1
            messages.append(message)
        elif status in _REQUEST_ENDED:
            self._open = 0
        else:
            raise PullError(f"the broker answers {status} {message.headers}")


@asynccontextmanager
async def pulling(client: Client, stream: str, consumer: str, batch: int) -> AsyncIterator[Pull]:
    """Open a pull on an existing consumer."""
    inbox = await client.subscribe(client.new_inbox())
    try:
        yield Pull(client, inbox, stream, consumer, batch)
    finally:
        with suppress(nats.errors.Error):
            await inbox.unsubscribe()
