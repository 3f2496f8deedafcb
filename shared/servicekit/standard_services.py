"""Surround health and reflection, which have no contract of ours, with identity, limits and typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc

from servicekit import bounds, contracts
from servicekit.auth import Authenticator, Identity, unauthenticated
from servicekit.certificates import uris_of
from servicekit.errors import DomainError, UnimplementedError
from servicekit.open_streams import OpenStreams
from servicekit.quotas import Quotas
from servicekit.status import DETAILS_KEY, encode_status

_EVERYBODY = Identity("", "")


class Guard:
    """Stands in for the server while health or reflection registers, and reads their requests for them.

    Only callers with a valid token are let in, of any role, because these methods say nothing about a tenant. Without an
    authenticator everybody is.
    """

    def __init__(
        self,
        server: Any,
        authenticator: Authenticator | None,
        streams: OpenStreams,
        quotas: Quotas,
        error_domain: str,
    ) -> None:
        self._server = server
        self._authenticator = authenticator
        self._streams = streams
        self._quotas = quotas
        self._error_domain = error_domain

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Ignore these handlers: generated code also registers the same methods by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register the guarded handlers."""
        guarded = {name: self._guard(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))

    def _guard(self, handler: Any) -> grpc.RpcMethodHandler:
        """Return the guarded handler; it takes raw bytes, so that a malformed message gets a typed error."""
        parse, serialize = handler.request_deserializer, handler.response_serializer
        if not handler.response_streaming:
            unary = self._unary(handler.unary_unary, parse)
            return grpc.unary_unary_rpc_method_handler(unary, response_serializer=serialize)
        if handler.request_streaming:
            both = self._stream(handler.stream_stream, lambda requests: _read_all(parse, requests))
            return grpc.stream_stream_rpc_method_handler(both, response_serializer=serialize)
        stream = self._stream(handler.unary_stream, lambda request: _read(parse, request))
        return grpc.unary_stream_rpc_method_handler(stream, response_serializer=serialize)

    def _unary(
        self, behavior: Callable[[Any, Any], Awaitable[Any]], parse: Callable[[bytes], Any]
    ) -> Callable[[bytes, Any], Awaitable[Any]]:
        async def call(raw: bytes, grpc_context: Any) -> Any:
            try:
                caller = await self._identify(grpc_context)
                with self._quotas.take(caller.tenant_id, caller.roles, is_stream=False):
                    return await behavior(_read(parse, raw), grpc_context)
            except NotImplementedError:  # a newer contract has methods that the library does not serve
                error = UnimplementedError("UNIMPLEMENTED", "this service does not offer the method")
                await self._refuse(grpc_context, error)
            except DomainError as refusal:
                await self._refuse(grpc_context, refusal)

        return call

    def _stream(
        self, behavior: Callable[[Any, Any], Any], read: Callable[[Any], Any]
    ) -> Callable[[Any, Any], Awaitable[None]]:
        async def call(requests: Any, grpc_context: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            try:
                first = await self._identify(grpc_context)

                async def check() -> None:
                    now = await self._identify(grpc_context)
                    if (now.tenant_id, now.actor) != (first.tenant_id, first.actor):
                        raise unauthenticated()

                self._streams.add(task, check)
                with self._quotas.take(first.tenant_id, first.roles, is_stream=True):
                    answers = behavior(read(requests), grpc_context)
                    if isinstance(answers, AsyncIterator):
                        async for answer in answers:
                            await grpc_context.write(answer)
                    else:
                        await answers
            except asyncio.CancelledError:
                cause = self._streams.cause_of(task)
                if cause is None:
                    raise
                task.uncancel()
                await self._refuse(grpc_context, cause)
            except DomainError as error:
                await self._refuse(grpc_context, error)
            finally:
                self._streams.discard(task)

        return call

    async def _identify(self, grpc_context: Any) -> Identity:
        if self._authenticator is None:
            return _EVERYBODY
        metadata = dict(grpc_context.invocation_metadata() or ())
        return await self._authenticator.authenticate(metadata, grpc_context.peer(), uris_of(grpc_context))

    async def _refuse(self, grpc_context: Any, error: DomainError) -> None:
        message, details = encode_status(error, self._error_domain)
        await grpc_context.abort(grpc.StatusCode[error.code], message, ((DETAILS_KEY, details),))


def _read(parse: Callable[[bytes], Any], raw: bytes) -> Any:
    bounds.check_size(raw, bounds.DEFAULT_BYTES)
    return contracts.parse(parse, raw)


async def _read_all(parse: Callable[[bytes], Any], requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for raw in requests:
        yield _read(parse, raw)
