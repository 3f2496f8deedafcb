"""Calls over gRPC: identity, deadlines, request ids, read-your-writes and typed errors; it knows no resource."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

import grpc

from optaic import errors
from optaic.client.certificates import Certificates
from optaic.client.discovery import (
    does_not_answer,
    find_gateway,
    find_object_store,
    find_realtime_url,
    no_address,
)
from optaic.client.gateway_files import fetch_artifact, fetch_rows
from optaic.client.silence import Notice, Silence

_MAXIMUM_TOKENS = 64
_TOKEN_SECONDS = 60.0
_PAGE_SECONDS = 60.0
_READ_TOKENS_KEY = "optaic-read-tokens"
_WRITE_TOKEN_KEY = "optaic-write-token"  # noqa: S105 - a metadata key
# A plan reads what is stale, a submission reads whether upstreams are ready, and a promotion reads the profile of the newest run.
_READ_PREFIXES = (
    "Get",
    "BatchGet",
    "List",
    "Watch",
    "Check",
    "Diff",
    "Explain",
    "Plan",
    "Preview",
    "PromoteDataset",
    "Submit",
    "Retry",
)
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 5.0
_HEALTH = "/grpc.health.v1.Health/Check"
_IS_SERVING = (
    b"\x08\x01"  # HealthCheckResponse(status=SERVING): the client has no need of grpcio-health-checking
)
# Every mutation carries a request id, so that a repetition is recognised by the service.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class Connection:
    """One channel for each service, opened on first use."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        token: str,
        timeout: float,
        notice: Notice | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self._addresses = dict(addresses)
        self._notice = notice or _ignore
        self._token = token
        self._timeout = timeout
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._retired: list[grpc.aio.Channel] = []  # calls under way when certificates changed end on them
        self._certificates = certificates or Certificates.find(self._addresses)
        self._written: OrderedDict[str, float] = OrderedDict()

    def find_object_store(self, uri: str) -> Mapping[str, str]:
        """Return the variables by which a URI of a stack on this machine is read; none for any other. It reads a file."""
        return find_object_store(self._addresses, uri)

    def find_realtime_url(self) -> str:
        """Return the WebSocket of live messages; empty if none is known."""
        return find_realtime_url(self._addresses)

    def fetch_artifact(self, run_id: str, name: str) -> bytes | None:
        """Return a file of a run from the gateway; None where no gateway is known. It blocks.

        Raises:
            OptaicError: The gateway refused, or did not answer.
        """
        gateway = find_gateway(self._addresses).rstrip("/")
        if not gateway:
            return None
        return fetch_artifact(gateway, self._token, run_id, name, self._timeout, self._certificates)

    def fetch_rows(self, run_id: str, wanted: Mapping[str, Any]) -> Iterator[bytes] | None:
        """Return the pages of a run's table from the gateway, as Arrow; None where no gateway is known. Each page blocks.

        Raises:
            OptaicError: The gateway refused, or did not answer.
        """
        gateway = find_gateway(self._addresses).rstrip("/")
        if not gateway:
            return None
        # The gateway itself waits as long for a page as it may take.
        seconds = max(self._timeout, _PAGE_SECONDS)
        return fetch_rows(gateway, self._token, run_id, wanted, seconds, self._certificates)

    def give_notice(self, message: str) -> None:
        """Tell whoever has asked for notices."""
        self._notice(message)

    def stub(self, service: str, make: Callable[[grpc.aio.Channel], Any]) -> Any:
        """Return a generated stub.

        Raises:
            UnavailableError: NO_ADDRESS; the address of the service is unknown.
            FailedPreconditionError: The connection would leave this machine without TLS, or a file cannot be read.
        """
        if self._certificates.have_changed():
            self._retired.extend(self._channels.values())
            self._channels.clear()
        channel = self._channels.get(service)
        if channel is None:
            if service not in self._addresses:
                raise no_address(service)
            channel = self._certificates.open_channel(self._addresses[service], _OPTIONS)
            self._channels[service] = channel
        return make(channel)

    async def call(
        self,
        service: str,
        make: Callable[[grpc.aio.Channel], Any],
        method: str,
        request: Any,
        *,
        keeps_tokens: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - the call's deadline, which the service sees too
    ) -> Any:
        """Make one call; later reads of this client see what it wrote.

        Raises:
            OptaicError: The service refused, or did not answer in time.
        """
        if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
            request.request_id = str(uuid.uuid4())
        deadline = time.monotonic() + (timeout or self._timeout)
        while True:
            call = getattr(self.stub(service, make), method)(
                request, timeout=deadline - time.monotonic(), metadata=self._metadata(method)
            )
            try:
                response = await call
                break
            except grpc.aio.AioRpcError as error:
                refused = self._typed(service, error)
                wait = refused.retry_seconds
                # A service that says when to ask again has done nothing yet.
                if wait is None or time.monotonic() + wait >= deadline:
                    raise refused from None
                await asyncio.sleep(wait)
        if keeps_tokens:
            self._remember(await call.trailing_metadata())
        return response

    async def is_serving(self, service: str) -> bool:
        """Return whether a service says that it can work: it answers, and so does what it depends on.

        Raises:
            OptaicError: It does not answer, or refuses the caller.
        """
        check = self.stub(service, lambda channel: channel.unary_unary(_HEALTH))
        try:
            answer: bytes = await check(b"", timeout=self._timeout, metadata=self._metadata(_HEALTH))
        except grpc.aio.AioRpcError as error:
            raise self._typed(service, error) from None
        return answer == _IS_SERVING

    async def stream(
        self,
        service: str,
        make: Callable[[grpc.aio.Channel], Any],
        method: str,
        next_request: Callable[[], Any],
    ) -> AsyncGenerator[Any]:
        """Yield a stream's answers; after a lost connection go on with `next_request()`, for ever.

        Gives notice when the service does not answer for a while, and when it answers again.

        Raises:
            OptaicError: The service refused.
        """
        backoff = _FIRST_BACKOFF
        stub = self.stub(service, make)
        name = f"{service}-service at {self._addresses[service]}"
        silence = Silence(name, self._notice, lambda: self._is_connected(service))
        async with silence.notify_while():
            while True:
                silence.opened()
                call = getattr(stub, method)(next_request(), metadata=self._metadata(method))
                try:
                    async for response in call:
                        backoff = _FIRST_BACKOFF
                        silence.message_came()
                        yield response
                except grpc.aio.AioRpcError as error:
                    refused = errors.from_rpc_error(error)
                    if not _is_passing(refused):
                        raise refused from None
                    silence.failed(str(refused))
                else:
                    self._remember(await call.trailing_metadata())
                    return
                finally:
                    call.cancel()
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF)
                stub = self.stub(service, make)  # its certificates may have changed

    async def close(self) -> None:
        """Close the channels."""
        await asyncio.gather(*(channel.close() for channel in (*self._channels.values(), *self._retired)))
        self._channels.clear()
        self._retired.clear()

    def _is_connected(self, service: str) -> bool:
        channel = self._channels.get(service)
        return channel is not None and channel.get_state() is grpc.ChannelConnectivity.READY

    def _typed(self, service: str, error: grpc.aio.AioRpcError) -> errors.OptaicError:
        refused = errors.from_rpc_error(error)
        # A service that refuses gives a reason of its own; without one nothing of ours has answered.
        if isinstance(refused, errors.UnavailableError) and refused.reason == error.code().name:
            return does_not_answer(service, self._addresses[service], refused.message)
        return refused

    def _metadata(self, method: str) -> list[tuple[str, str]]:
        metadata = [("authorization", f"Bearer {self._token}")] if self._token else []
        if method.startswith(_READ_PREFIXES):
            oldest = time.monotonic() - _TOKEN_SECONDS
            tokens = [token for token, moment in self._written.items() if moment >= oldest]
            if tokens:
                metadata.append((_READ_TOKENS_KEY, ",".join(tokens)))
        return metadata

    def _remember(self, trailing: Any) -> None:
        for key, value in trailing or ():
            if key == _WRITE_TOKEN_KEY:
                for token in filter(None, str(value).split(",")):
                    self._written[token.strip()] = time.monotonic()
                    self._written.move_to_end(token.strip())
        while len(self._written) > _MAXIMUM_TOKENS:
            self._written.popitem(last=False)


def _ignore(_: str) -> None:
    """Ignore a notice."""


def _is_passing(error: errors.OptaicError) -> bool:
    """Return whether a stream that ended so may be resumed where it broke off."""
    is_full = error.retry_seconds is not None
    return is_full or isinstance(error, errors.UnavailableError) or error.reason == "WATCHER_TOO_SLOW"
