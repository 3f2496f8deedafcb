"""Open channels to other services; they send the identity, ids and deadline of the current request with each call.

They wrap the multi-callables plainly, because grpc's own interceptors cost a task for each call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Self

import grpc

from servicekit import context
from servicekit.auth import ACTOR_KEY, AUTHORIZATION_KEY, TENANT_KEY
from servicekit.ids import new_id
from servicekit.interceptor import REQUEST_ID_KEY, TRACEPARENT_KEY
from servicekit.tls import TlsFiles, Watch

DEFAULT_DEADLINE = 10.0
_RETIREMENT_SECONDS = 30.0  # for calls under way when certificates change
_MAXIMUM_MESSAGE_BYTES = 16 * 1024 * 1024
# Safe for every method: a mutation without a request id gets one, so a repetition is recognised.
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
OPTIONS_WITHOUT_RETRIES = (
    ("grpc.max_receive_message_length", _MAXIMUM_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAXIMUM_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_OPTIONS = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    *OPTIONS_WITHOUT_RETRIES,
)


def connect(
    address: str,
    *,
    token_source: Callable[[], str],
    default_deadline: float = DEFAULT_DEADLINE,
    tls: TlsFiles | None = None,
) -> Channel:
    """Return a channel that connects on first use; `token_source` gives the bearer token of each call.

    With `tls`, a new connection replaces the present one when the files change.

    Raises:
        OSError: A file of certificates cannot be read.
    """
    return Channel(Connection(address, tls, _OPTIONS), token_source, default_deadline)


class Connection:
    """A `grpc.aio.Channel` to a service, which is opened anew when its certificates change; calls under way end on the old one.

    Raises:
        OSError: A file of certificates cannot be read.
    """

    def __init__(self, address: str, tls: TlsFiles | None, options: Any) -> None:
        # It looks at the files first: a change between this and the channel counts as one.
        self._watch = Watch(tls) if tls is not None else None
        self._tls = tls
        self._address = address
        self._options = options
        self._channel = self._open()
        self._retired: set[asyncio.Task[None]] = set()

    def _open(self) -> Any:
        if self._tls is None:
            return grpc.aio.insecure_channel(self._address, options=self._options)
        return grpc.aio.secure_channel(self._address, self._tls.channel_credentials(), options=self._options)

    def channel(self) -> Any:
        """Return the channel, a new one if the certificates have changed."""
        if self._watch is not None and self._watch.has_changed():
            with contextlib.suppress(OSError):  # the next change comes
                renewed = self._open()
                retiring = asyncio.ensure_future(self._channel.close(_RETIREMENT_SECONDS))
                self._retired.add(retiring)
                retiring.add_done_callback(self._retired.discard)
                self._channel = renewed
        return self._channel

    async def close(self, grace: float | None = None) -> None:
        """Close the channel."""
        await self._channel.close(grace)


class Channel:
    """A `grpc.aio.Channel` for generated stubs, which sends the current request's metadata with every call."""

    def __init__(
        self, connection: Connection, token_source: Callable[[], str], default_deadline: float
    ) -> None:
        self._connection = connection
        self._token_source = token_source
        self._default_deadline = default_deadline

    def unary_unary(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return a method with one answer; its deadline is never later than that of the current request."""
        return self._marked(lambda inner: inner.unary_unary(*arguments, **options), self._default_deadline)

    def unary_stream(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return a method with a stream of answers; without a timeout it has no deadline of its own."""
        return self._marked(lambda inner: inner.unary_stream(*arguments, **options), None)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """Return the bare method: our contracts stream no requests."""
        return self._connection.channel().stream_unary(*arguments, **options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """Return the bare method: our contracts stream no requests."""
        return self._connection.channel().stream_stream(*arguments, **options)

    async def channel_ready(self) -> None:
        """Wait until the connection stands."""
        await self._connection.channel().channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """Close the connection."""
        await self._connection.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _marked(self, make: Callable[[Any], Any], default_deadline: float | None) -> Callable[..., Any]:
        inner = self._connection.channel()
        method = make(inner)

        def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: Any = None,
            **options: Any,
        ) -> Any:
            nonlocal inner, method
            present = self._connection.channel()
            if inner is not present:
                inner, method = present, make(present)
            current = context.current_or_none()
            limits = [
                limit for limit in (timeout, current.remaining() if current else None) if limit is not None
            ]
            if timeout is None and default_deadline is not None:
                limits.append(default_deadline)
            if getattr(request, "request_id", None) == "":
                request.request_id = new_id()
            return method(
                request,
                timeout=min(limits) if limits else None,
                metadata=(*self._marks(current), *(metadata or ())),
                **options,
            )

        return call

    def _marks(self, current: context.RequestContext | None) -> list[tuple[str, str]]:
        marks = []
        token = self._token_source()
        if token:
            marks.append((AUTHORIZATION_KEY, f"Bearer {token}"))
        if current is None:
            marks.append((REQUEST_ID_KEY, new_id()))
            marks.append((TRACEPARENT_KEY, context.new_traceparent()))
            return marks
        marks.append((TENANT_KEY, current.tenant_id))
        marks.append((ACTOR_KEY, current.actor))
        marks.append((REQUEST_ID_KEY, current.request_id))
        marks.append((TRACEPARENT_KEY, current.traceparent))
        return marks
