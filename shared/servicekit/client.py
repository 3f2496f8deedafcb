"""Open channels to other services; they send the identity, ids and deadline of the current request with each call.

They wrap the multi-callables plainly, because grpc's own interceptors cost a task for each call.
"""

from __future__ import annotations

import asyncio
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
_OPTIONS = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", _MAXIMUM_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAXIMUM_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
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

    def open_channel() -> Any:
        if tls is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        return grpc.aio.secure_channel(address, tls.channel_credentials(), options=_OPTIONS)

    # It looks at the files first: a change between this and the channel counts as one.
    renewal = Renewal(tls, open_channel) if tls else None
    return Channel(open_channel(), token_source, default_deadline, renewal)


class Renewal:
    """Open a channel anew when its certificates have changed."""

    def __init__(self, files: TlsFiles, open_channel: Callable[[], Any]) -> None:
        self._watch = Watch(files)
        self._open_channel = open_channel

    def renew(self) -> Any:
        """Return the new channel, or None while the present one is good."""
        try:
            return self._open_channel() if self._watch.has_changed() else None
        except OSError:
            return None  # the next change comes


class Channel:
    """A `grpc.aio.Channel` for generated stubs, which sends the current request's metadata with every call."""

    def __init__(
        self,
        inner: Any,
        token_source: Callable[[], str],
        default_deadline: float,
        renewal: Renewal | None = None,
    ) -> None:
        self._inner = inner
        self._renewal = renewal
        self._retired: set[asyncio.Task[None]] = set()
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
        return self._inner.stream_unary(*arguments, **options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """Return the bare method: our contracts stream no requests."""
        return self._inner.stream_stream(*arguments, **options)

    async def channel_ready(self) -> None:
        """Wait until the connection stands."""
        await self._inner.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """Close the connection."""
        await self._inner.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _renew(self) -> None:
        """Replace the connection if its certificates have changed; calls under way end on the old one."""
        renewed = self._renewal.renew() if self._renewal is not None else None
        if renewed is not None:
            retiring = asyncio.ensure_future(self._inner.close(_RETIREMENT_SECONDS))
            self._retired.add(retiring)
            retiring.add_done_callback(self._retired.discard)
            self._inner = renewed

    def _marked(self, make: Callable[[Any], Any], default_deadline: float | None) -> Callable[..., Any]:
        inner, method = self._inner, make(self._inner)

        def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: Any = None,
            **options: Any,
        ) -> Any:
            nonlocal inner, method
            self._renew()
            if inner is not self._inner:
                inner, method = self._inner, make(self._inner)
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
