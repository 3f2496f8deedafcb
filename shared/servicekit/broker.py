"""Keep the connection to NATS JetStream; only servicekit's modules know the NATS client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import PubAck, RetentionPolicy, StorageType, StreamConfig

from servicekit import tasks
from servicekit.errors import UnavailableError
from servicekit.settings import ServiceSettings
from servicekit.tls import TlsFiles

DEAD_LETTERS = "DEAD_LETTERS"
DEAD_LETTER_ROOT = "optaic-dead"
# Whose login may change the stream of dead letters, which all services share; without a name there is one login only.
_KEEPERS = ("instance-service", "")
MAXIMUM_AGE = 14 * 24 * 3600  # seconds; every stream keeps events this long
_DUPLICATE_WINDOW = 120
_RETRY = 0.5
_ACK_TIMEOUT = 5.0
_CONNECT_TIMEOUT = 5.0
_REFUSAL_COUNTS = 60.0  # seconds; after this, another replica may have published without this one noticing

LiveMessage: TypeAlias = Msg
Listener = Callable[[LiveMessage], Awaitable[None]]
_log = structlog.get_logger(__name__)


def inbox_of(service: str) -> str:
    """Return the prefix of the subjects on which a service's login receives answers; the library's own without a service."""
    name = service.removesuffix("-service").upper()
    return f"_INBOX_{name}" if name else "_INBOX"


class Broker:
    """A lasting connection: it is opened in the background, and opened again whenever it breaks.

    `streams` maps the name of each stream that this service owns to its subjects. Answers of the broker come to the
    inbox of the login `service`, which no other login may read.
    """

    def __init__(
        self, settings: ServiceSettings, streams: Mapping[str, Sequence[str]], service: str = ""
    ) -> None:
        self._url, self._tls = settings.nats_url, settings.nats_tls()
        self._inbox = inbox_of(service)
        self._may_change_dead_letters = service in _KEEPERS
        self._streams = {**streams, DEAD_LETTERS: (f"{DEAD_LETTER_ROOT}.>",)}
        self._listeners: list[tuple[str, str, Listener]] = []
        self._client: Client | None = None
        self._ready = asyncio.Event()
        self._closed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._refused_time = -_REFUSAL_COUNTS  # the time at which the streams refused a message

    async def connect(self) -> None:
        """Start to connect and return at once: a service also serves without its broker."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connected(), name="broker")

    async def ready(self) -> None:
        """Wait until the connection stands and this service's streams exist."""
        await self.connect()
        await self._ready.wait()

    async def _keep_connected(self) -> None:
        # The client's own reconnecting is switched off: an unforeseen error would end it silently.
        while True:
            try:
                async with connected(self._url, self._inbox, self._tls) as (client, closed):
                    self._client, self._closed = client, closed
                    await self.ensure_streams()
                    for subject, queue, listener in self._listeners:
                        await client.subscribe(subject, queue, listener)
                    self._ready.set()
                    _log.info("broker connected")
                    await closed.wait()
                    _log.warning("broker disconnected")
            except Exception as error:  # noqa: BLE001 - nothing may end the keeper
                _log.warning("broker connection failed", error=repr(error))
            finally:
                self._ready.clear()
                self._client = None
            await asyncio.sleep(_RETRY)

    async def wait_for_end(self, seconds: float) -> None:
        """Wait until the present connection ends, at most for a time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    @property
    def client(self) -> Client:
        """Return the present connection.

        Raises:
            UnavailableError: The broker is not connected at the moment.
        """
        if self._client is None:
            raise UnavailableError(
                "BROKER_UNAVAILABLE",
                "this service is not connected to NATS; retry, and check that NATS runs (make status)",
            )
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """Return the JetStream API of the present connection."""
        return self.client.jetstream(timeout=5)

    async def ensure_streams(self) -> None:
        """Create or update this service's streams, and create that of the dead letters; it may be repeated."""
        jetstream = self.jetstream
        for name, subjects in self._streams.items():
            config = StreamConfig(
                name=name,
                subjects=list(subjects),
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                max_age=MAXIMUM_AGE,
                duplicate_window=_DUPLICATE_WINDOW,
            )
            try:
                await jetstream.add_stream(config)
            except nats.js.errors.BadRequestError:  # it exists with another configuration
                if name != DEAD_LETTERS or self._may_change_dead_letters:
                    await jetstream.update_stream(config)

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[OrderedChannel]:
        """Open a separate connection for publishing; it lasts until it breaks."""
        async with connected(self._url, self._inbox, self._tls) as (client, closed):
            yield OrderedChannel(client, closed, self._note)

    def _note(self, *, takes_messages: bool) -> None:
        """Remember whether streams accept messages: a broker with a full disk answers all other requests."""
        self._refused_time = -_REFUSAL_COUNTS if takes_messages else time.monotonic()

    async def publish_live(self, subject: str, payload: bytes) -> None:
        """Send a message to present listeners; without a connection it is lost, by design."""
        if self._client is not None:
            with contextlib.suppress(nats.errors.Error):
                await self._client.publish(subject, payload)

    def listen_live(self, subject: str, listener: Listener, queue: str = "") -> None:
        """Listen to live messages on all connections to come; within a queue one listener gets each message."""
        self._listeners.append((subject, queue, listener))

    async def ping(self) -> None:
        """Raise UnavailableError if the broker does not answer, or refused the last messages."""
        if time.monotonic() < self._refused_time + _REFUSAL_COUNTS:
            raise UnavailableError(
                "BROKER_UNAVAILABLE",
                "the streams of NATS accept no messages; retry, and check its disk and its log",
            )
        try:
            await self.client.flush(timeout=2)
        except nats.errors.Error as error:
            raise UnavailableError(
                "BROKER_UNAVAILABLE", "NATS does not answer; retry, and check that NATS runs (make status)"
            ) from error

    async def close(self) -> None:
        """Close the connection."""
        if self._keeper is not None:
            await tasks.end({self._keeper}, _CONNECT_TIMEOUT)


@contextlib.asynccontextmanager
async def connected(
    url: str, inbox_prefix: str = "_INBOX", tls: TlsFiles | None = None
) -> AsyncIterator[tuple[Client, asyncio.Event]]:
    """Yield a connection and the event of its end.

    It never reconnects, so that no message overtakes a lost one. Answers to its requests arrive on subjects below
    `inbox_prefix`. Each connection reads the files of `tls` again.
    """
    closed = asyncio.Event()

    async def on_closed() -> None:
        closed.set()

    client = Client()
    context = None
    if tls is not None:
        logging.getLogger("asyncio").addFilter(_has_news)
        context = await asyncio.to_thread(tls.context)  # it reads files
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            await client.connect(
                url,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=2,
                ping_interval=5,
                max_outstanding_pings=2,
                error_cb=_on_error,
                disconnected_cb=on_closed,
                closed_cb=on_closed,
                inbox_prefix=inbox_prefix,
                tls=context,
            )
        yield client, closed
    finally:
        with contextlib.suppress(OSError, nats.errors.Error):
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await client.close()


def _has_news(record: logging.LogRecord) -> bool:
    """Return False for asyncio's remark on how the NATS client ends a connection over TLS, which no one can act on."""
    return not record.getMessage().startswith("returning true from eof_received()")


class OrderedChannel:
    """A publisher of windows of messages in order; it returns which of them the broker acknowledged."""

    def __init__(self, client: Client, closed: asyncio.Event, note: Callable[..., None]) -> None:
        self._note = note
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
                try:
                    acks.append(await self._jetstream.publish_async(subject, payload, headers=headers))
                except nats.errors.MaxPayloadError as error:  # the other messages must not wait for it
                    acks.append(_refused(error))
            everything = asyncio.ensure_future(asyncio.wait(acks, timeout=_ACK_TIMEOUT))
            await asyncio.wait({everything, closing}, return_when=asyncio.FIRST_COMPLETED)
            everything.cancel()
        except nats.errors.Error as error:
            raise UnavailableError(
                "BROKER_UNAVAILABLE", "NATS does not accept messages; retry, and check its disk and its log"
            ) from error
        finally:
            closing.cancel()
            results = [_is_acknowledged(ack) for ack in acks]
        if not self._closed.is_set():
            self._note(takes_messages=any(results))
        if not any(results):
            raise UnavailableError(
                "BROKER_UNAVAILABLE", "NATS acknowledged no message; retry, and check its disk and its log"
            )
        return results


def _refused(error: Exception) -> asyncio.Future[PubAck]:
    ack: asyncio.Future[PubAck] = asyncio.get_running_loop().create_future()
    ack.set_exception(error)
    return ack


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
