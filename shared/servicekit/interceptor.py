"""Surround every method with ids, identity, permission, deadline, validation, read tokens, errors and logs.

It is one flat function for each call instead of a stack of gRPC interceptors, because every call of every service passes
it. It treats all methods alike.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message

from servicekit import access, bounds, context, contracts, off_loop
from servicekit.access import MethodAccess
from servicekit.admission import Admission
from servicekit.audit.records import is_audited
from servicekit.audit.trail import AuditTrail
from servicekit.certificates import uris_of
from servicekit.context import RequestContext
from servicekit.errors import (
    DeadlineExceededError,
    DomainError,
    InternalError,
    PermissionDeniedError,
    UnavailableError,
)
from servicekit.ids import new_id
from servicekit.open_streams import OpenStreams
from servicekit.quotas import OverQuotaError, Quotas
from servicekit.refusals import Refusals
from servicekit.status import DETAILS_KEY, encode_status, size_of
from servicekit.tokens import ReadTokens

REQUEST_ID_KEY = "x-request-id"
TRACEPARENT_KEY = "traceparent"
READ_TOKENS_KEY = "optaic-read-tokens"
WRITE_TOKEN_KEY = "optaic-write-token"  # noqa: S105 - a metadata key
_LARGE_ANSWER = 256 << 10  # bytes
_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_DOWNSTREAM_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_log = structlog.get_logger(__name__)
_level = logging.getLogger(__name__)


class Interceptor:
    """Wrap the handlers of servicers."""

    def __init__(
        self,
        error_domain: str,
        admission: Admission,
        read_tokens: ReadTokens | None,
        default_deadline_seconds: float,
        quotas: Quotas,
        refusals: Refusals,
        trail: AuditTrail | None = None,
    ) -> None:
        self._trail = trail
        self._error_domain = error_domain
        self._admission = admission
        self._read_tokens = read_tokens
        self._default_deadline_seconds = default_deadline_seconds
        self._quotas = quotas
        self._refusals = refusals
        self.streams = OpenStreams()

    def wrap(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return the wrapped handler; it takes raw bytes, so that a malformed message gets a typed error.

        A method that answers once also returns raw bytes, so that others have their turn of the event loop between the
        serialization and the sending of a large answer.

        Raises:
            TypeError: The method streams requests, which no contract of ours does.
            ValueError: The contract of the method names no permission, so nobody could be refused.
        """
        rules = access.access_of(method)
        if handler.request_streaming:
            raise TypeError(f"{method} streams requests, which is not supported")
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(rules, handler), response_serializer=handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(self._unary(rules, handler))

    def _unary(self, rules: MethodAccess, handler: grpc.RpcMethodHandler) -> Callable[[bytes, Any], Any]:
        behavior, parse, method = handler.unary_unary, handler.request_deserializer, rules.path
        serialize = handler.response_serializer
        trail = self._trail if is_audited(rules.path) else None
        most = bounds.most_bytes(method)

        async def call(raw: bytes, grpc_context: Any) -> Any:
            began = time.monotonic()
            metadata = dict(grpc_context.invocation_metadata() or ())
            request = _anonymous(metadata)
            try:
                with context.bind(request):
                    _set_deadline(request, grpc_context, self._default_deadline_seconds)
                    async with asyncio.timeout(request.remaining()):
                        await self._admission.admit(
                            request, rules, metadata, grpc_context.peer(), uris_of(grpc_context)
                        )
                        with self._quotas.take(request.tenant_id, request.roles, is_stream=False):
                            message = await self._parse(parse, raw, most)
                            await self._await_writes(request)
                            message = await self._admission.confine(request, rules, message)
                            if trail is None or getattr(message, "validate_only", False):
                                response = await behavior(message, grpc_context)
                            else:
                                async with trail.record(request, method, grpc_context.peer()):
                                    response = await behavior(message, grpc_context)
                            response = await self._admission.hide(request, response)
                            answer = response if serialize is None else serialize(response)
                            del response
                            if len(answer) > _LARGE_ANSWER:
                                await asyncio.sleep(0)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except BaseException as error:  # noqa: BLE001 - every fault must become a status
                await self._refuse(grpc_context, request, method, error)
            grpc_context.set_trailing_metadata(_trailing(request))
            if _level.isEnabledFor(logging.DEBUG):
                with context.bind(request):
                    _log.debug("served", method=method, seconds=round(time.monotonic() - began, 6))
            return answer

        return call

    def _stream(
        self, rules: MethodAccess, handler: grpc.RpcMethodHandler
    ) -> Callable[[bytes, Any], AsyncIterator[Any]]:
        behavior, parse, method = handler.unary_stream, handler.request_deserializer, rules.path
        most = bounds.most_bytes(method)

        async def call(raw: bytes, grpc_context: Any) -> AsyncIterator[Any]:
            metadata = dict(grpc_context.invocation_metadata() or ())
            request = _anonymous(metadata)
            task = asyncio.current_task()
            assert task is not None
            peer, uris = grpc_context.peer(), uris_of(grpc_context)
            # It is not reset: the task ends with the stream, and another context may close the generator.
            context.enter(request)
            try:
                _set_deadline(request, grpc_context, None)
                await self._admission.admit(request, rules, metadata, peer, uris)
                with self._quotas.take(request.tenant_id, request.roles, is_stream=True):
                    message = await self._parse(parse, raw, most)
                    await self._await_writes(request)
                    confined = await self._admission.confine(request, rules, message)
                    self.streams.add(
                        task,
                        lambda: self._admission.check_again(request, rules, metadata, peer, uris, message),
                    )
                    async for response in behavior(confined, grpc_context):
                        yield await self._admission.hide(request, response)
            except asyncio.CancelledError:
                cause = self.streams.cause_of(task)
                if cause is None:
                    raise
                task.uncancel()
                await self._refuse(grpc_context, request, method, cause)
            except (grpc.aio.AbortError, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 - every fault must become a status
                await self._refuse(grpc_context, request, method, error)
            finally:
                self.streams.discard(task)
            grpc_context.set_trailing_metadata(_trailing(request))

        return call

    async def _parse(self, parse: Callable[[bytes], Any] | None, raw: bytes, most: int) -> Any:
        bounds.check_size(raw, most)
        if parse is None:
            return raw
        return await off_loop.run_if_large(len(raw), _parse, parse, raw)

    async def _await_writes(self, request: RequestContext) -> None:
        if request.read_tokens and self._read_tokens is not None:
            await self._read_tokens.wait(request.tenant_id, request.read_tokens, request.deadline)

    async def _meaning(self, request: RequestContext, error: BaseException) -> DomainError:
        """Return what the caller may know of an error."""
        try:
            return await self._admission.hide_in_error(request, _domain_error(error))
        except Exception as failure:  # noqa: BLE001 - what cannot be hidden is not told
            return _domain_error(failure)

    async def _refuse(
        self, grpc_context: Any, request: RequestContext, method: str, error: BaseException
    ) -> None:
        meaning = await self._meaning(request, error)
        if self._trail is not None and request.tenant_id and isinstance(meaning, PermissionDeniedError):
            self._trail.denials.count(request, method, grpc_context.peer())
        if not isinstance(error, OverQuotaError) and self._refusals.may_log(
            request.tenant_id, meaning.reason
        ):
            with context.bind(request):
                _log_refusal(method, error, meaning)
        message, details = await off_loop.run_if_large(
            size_of(meaning), encode_status, meaning, self._error_domain
        )
        await grpc_context.abort(
            grpc.StatusCode[meaning.code],
            message,
            ((DETAILS_KEY, details), (REQUEST_ID_KEY, request.request_id)),
        )


def _log_refusal(method: str, error: BaseException, meaning: DomainError) -> None:
    if isinstance(meaning, InternalError):
        _log.error("failed", method=method, exc_info=error)
    else:
        _log.info("refused", method=method, code=meaning.code, reason=meaning.reason, text=meaning.message)


def _parse(parse: Callable[[bytes], Any], raw: bytes) -> Any:
    message = contracts.parse(parse, raw)
    if isinstance(message, Message):
        bounds.check_bounds(message)
        contracts.check_contract(message, raw)
    return message


def _set_deadline(request: RequestContext, grpc_context: Any, default_deadline_seconds: float | None) -> None:
    remaining = grpc_context.time_remaining()
    request.has_own_deadline = remaining is not None
    if remaining is None:
        remaining = default_deadline_seconds
    if remaining is not None:
        request.deadline = time.monotonic() + remaining


def _anonymous(metadata: dict[str, str]) -> RequestContext:
    request_id = metadata.get(REQUEST_ID_KEY, "")
    traceparent = metadata.get(TRACEPARENT_KEY, "")
    read_tokens = metadata.get(READ_TOKENS_KEY, "")
    return RequestContext(
        tenant_id="",
        actor="",
        request_id=request_id if _REQUEST_ID_PATTERN.fullmatch(request_id) else new_id(),
        traceparent=traceparent if context.is_traceparent(traceparent) else context.new_traceparent(),
        read_tokens=tuple(token.strip() for token in read_tokens.split(",") if token.strip()),
    )


def _trailing(request: RequestContext) -> list[tuple[str, str]]:
    trailing = [(REQUEST_ID_KEY, request.request_id)]
    if request.write_tokens:
        trailing.append((WRITE_TOKEN_KEY, ",".join(request.write_tokens)))
    return trailing


def _domain_error(error: BaseException) -> DomainError:
    """Convert an error into what the caller may know: nothing but INTERNAL for a fault of our own."""
    if isinstance(error, DomainError):
        return error
    if isinstance(error, TimeoutError):
        return DeadlineExceededError(
            "DEADLINE_EXCEEDED", "the call took longer than its deadline; retry with a longer one"
        )
    if isinstance(error, grpc.aio.AioRpcError) and error.code() in _DOWNSTREAM_CODES:
        return UnavailableError("DEPENDENCY_UNAVAILABLE", "a service that is needed does not answer; retry")
    return InternalError("INTERNAL", "internal error; search the log of the service for this request id")
