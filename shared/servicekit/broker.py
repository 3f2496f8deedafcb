"""The connection to NATS JetStream; the only modules that know the client are this one and its users here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import PubAck, RetentionPolicy, StorageType, StreamConfig

from servicekit.errors import UnavailableError
from servicekit.settings import ServiceSettings

DEAD_LETTERS = "DEAD_LETTERS"
DEAD_LETTER_ROOT = "optaic-dead"
_MAXIMUM_AGE = 14 * 24 * 3600
_DUPLICATE_WINDOW = 120
_RETRY = 0.5
_ACK_TIMEOUT = 5.0
_log = structlog.get_logger(__name__)


class Broker:
    """One lasting connection: it connects in the background and reconnects for ever.

    `streams` are the streams that this service owns: name -> subjects.
    """

    def __init__(self, settings: ServiceSettings, streams: Mapping[str, Sequence[str]]) -> None:
        self._url = settings.nats_url
        self._streams = {**streams, DEAD_LETTERS: (f"{DEAD_LETTER_ROOT}.>",)}
        self._client = Client()
        self._ready = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Start connecting; returns at once, because a service serves without its broker."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="broker-connect")

    async def ready(self) -> None:
        """Wait until connected for the first time and the own streams exist."""
        await self.connect()
        await self._ready.wait()

    async def _connect(self) -> None:
        await self._client.connect(
            self._url,
            connect_timeout=2,
            reconnect_time_wait=_RETRY,  # type: ignore[arg-type]  # used as seconds of a sleep
            max_reconnect_attempts=-1,
            ping_interval=5,
            max_outstanding_pings=2,
            error_cb=_on_error,
            disconnected_cb=_on_disconnect,
            reconnected_cb=_on_reconnect,
        )
        while True:
            try:
                await self.ensure_streams()
            except (nats.errors.Error, TimeoutError) as error:
                _log.warning("streams not ensured", error=repr(error))
                await asyncio.sleep(_RETRY)
            else:
                break
        self._ready.set()

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream API of the lasting connection."""
        return self._client.jetstream(timeout=5)

    async def ensure_streams(self) -> None:
        """Create or update the own streams and the dead letters; safe to repeat."""
        jetstream = self.jetstream
        for name, subjects in self._streams.items():
            config = StreamConfig(
                name=name,
                subjects=list(subjects),
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                max_age=_MAXIMUM_AGE,
                duplicate_window=_DUPLICATE_WINDOW,
            )
            try:
                await jetstream.add_stream(config)
            except nats.js.errors.BadRequestError:  # it exists with another configuration
                await jetstream.update_stream(config)

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[OrderedChannel]:
        """Open a publishing connection that never reconnects: what it loses, nothing overtakes."""
        closed = asyncio.Event()

        async def on_closed() -> None:
            closed.set()

        client = await nats.connect(
            self._url,
            allow_reconnect=False,
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            error_cb=_on_error,
            disconnected_cb=on_closed,
            closed_cb=on_closed,
        )
        try:
            yield OrderedChannel(client, closed)
        finally:
            await client.close()

    async def publish_live(self, subject: str, payload: bytes) -> None:
        """Send to those who listen just now; lost without a connection, by design."""
        if self._client.is_connected:
            await self._client.publish(subject, payload)

    async def subscribe_core(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Listen to live messages."""
        await self.ready()
        return await self._client.subscribe(subject, cb=callback)

    async def ping(self) -> None:
        """Raise UnavailableError where the broker does not answer."""
        try:
            if not self._client.is_connected:
                raise UnavailableError("BROKER_UNAVAILABLE", "the broker is not connected")
            await self._client.flush(timeout=2)
        except nats.errors.Error as error:
            raise UnavailableError("BROKER_UNAVAILABLE", "the broker does not answer") from error

    async def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if not self._client.is_closed:
            await self._client.close()


class OrderedChannel:
    """Publishes windows of messages, in order, and says which were acknowledged."""

    def __init__(self, client: Client, closed: asyncio.Event) -> None:
        self._client = client
        self._jetstream = client.jetstream(timeout=5)
        self._closed = closed

    async def publish(self, messages: Sequence[tuple[str, bytes, dict[str, str]]]) -> list[bool]:
        """Send (subject, payload, headers) all at once; return for each whether the stream has it.

        Raises:
            UnavailableError: The connection is gone or nothing was acknowledged; open a new channel.
        """
        acks: list[asyncio.Future[PubAck]] = []
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            for subject, payload, headers in messages:
                acks.append(await self._jetstream.publish_async(subject, payload, headers=headers))
            everything = asyncio.ensure_future(asyncio.wait(acks, timeout=_ACK_TIMEOUT))
            await asyncio.wait({everything, closing}, return_when=asyncio.FIRST_COMPLETED)
            everything.cancel()
        except nats.errors.Error as error:
            raise UnavailableError("BROKER_UNAVAILABLE", "the broker does not take messages") from error
        finally:
            closing.cancel()
            results = [_is_acknowledged(ack) for ack in acks]
        if not any(results):
            raise UnavailableError("BROKER_UNAVAILABLE", "the broker acknowledged nothing")
        return results


def _is_acknowledged(ack: asyncio.Future[PubAck]) -> bool:
    if not ack.done():
        ack.cancel()
        return False
    error = ack.exception()
    if error is not None:
        _log.warning("publish refused", error=repr(error))
    return error is None


async def _on_error(error: Exception) -> None:
    _log.warning("broker connection", error=repr(error))


async def _on_disconnect() -> None:
    _log.warning("broker disconnected")


async def _on_reconnect() -> None:
    _log.info("broker reconnected")
