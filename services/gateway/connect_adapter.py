"""All that the gateway knows of connectrpc: Connect, gRPC-Web and JSON in, bytes of gRPC out and back.

A binary request passes as it came, so the service alone judges it. JSON is converted here, in a thread if it is long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf import json_format, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from protobuf.wkt import Any as ConnectAny
from protobuf.wkt import Struct

from gateway import errors
from gateway.backends import Backends
from gateway.caller import Callers
from gateway.methods import Method
from gateway.request import PASSED_ON
from servicekit import off_loop
from servicekit.errors import DomainError
from servicekit.interceptor import REQUEST_ID_KEY, WRITE_TOKEN_KEY
from servicekit.status import DETAILS_KEY, to_status

_PASSED_BACK = (REQUEST_ID_KEY, WRITE_TOKEN_KEY)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Body:
    """A request as it came."""

    raw: bytes
    is_json: bool


class _Codec:
    """Pass bytes through; the endpoints convert."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        """Return the name by which content types know it."""
        return self._name

    def encode(self, message: Any) -> bytes:
        """Return what the endpoint made."""
        return bytes(message)

    def decode(self, data: bytes | bytearray, _message_class: type[Any]) -> Any:
        """Return what the endpoint reads."""
        return _Body(bytes(data), self._name == "json")


class _Detail(ErrorDetail):
    """A detail that the JSON of an error shows readable as well."""

    def __init__(self, detail: AnyMessage) -> None:
        super().__init__(ConnectAny(type_url=detail.type_url, value=detail.value))
        self._detail = detail

    def value(self, *_: Any) -> Any:
        """Return it as an object of JSON."""
        return Struct.from_json(json.dumps(errors.readable(self._detail)))


class Application(ConnectASGIApplication[None]):
    """The ASGI application of all methods."""

    path = ""

    def __init__(
        self, methods: Mapping[str, Method], backends: Backends, callers: Callers, stream_seconds: float
    ) -> None:
        super().__init__(
            service=None,
            endpoints=lambda _: {
                path: _Endpoint(method, backends, callers, stream_seconds).make()
                for path, method in methods.items()
            },
            # The door has measured the body.
            read_max_bytes=None,
            # Nothing is decompressed, so nothing small becomes large.
            compressions=(),
            codecs=[_Codec("proto"), _Codec("json")],
        )


class _Endpoint:
    """One method: the call of the service that stands behind it."""

    def __init__(self, method: Method, backends: Backends, callers: Callers, stream_seconds: float) -> None:
        self._stream_seconds = stream_seconds
        self._method = method
        self._backends = backends
        self._callers = callers
        self._request: Any = message_factory.GetMessageClass(method.descriptor.input_type)
        self._answer: Any = message_factory.GetMessageClass(method.descriptor.output_type)

    def make(self) -> Any:
        info: MethodInfo[Any, Any] = MethodInfo(
            name=self._method.descriptor.name,
            service_name=self._method.descriptor.containing_service.full_name,
            input=self._request,
            output=self._answer,
            # No GET: a page of another origin could send one without being asked for its origin.
            idempotency_level=IdempotencyLevel.UNKNOWN,
            stream_type=StreamType.SERVER_STREAM if self._method.is_stream else StreamType.UNARY,
        )
        if self._method.is_stream:
            return Endpoint.server_stream(method=info, function=self._stream)
        return Endpoint.unary(method=info, function=self._unary)

    async def _unary(self, body: _Body, ctx: Any) -> bytes:
        with _faults_hidden():
            return await self._call(body, ctx)

    async def _stream(self, body: _Body, ctx: Any) -> AsyncIterator[bytes]:
        with _faults_hidden():
            async for answer in self._answers(body, ctx):
                yield answer

    async def _call(self, body: _Body, ctx: Any) -> bytes:
        raw = await self._read(body)
        call = self._backends.unary(self._method.service, self._method.grpc_path)(
            raw, metadata=_metadata(ctx), timeout=_seconds(ctx)
        )
        try:
            answer: bytes = await call
            _pass_back(ctx, await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            raise self._refused(ctx, error) from None
        finally:
            call.cancel()
        self._callers.judge(grpc.StatusCode.OK)
        return await self._write(answer, is_json=body.is_json)

    async def _answers(self, body: _Body, ctx: Any) -> AsyncIterator[bytes]:
        raw = await self._read(body)
        call = self._backends.stream(self._method.service, self._method.grpc_path)(
            raw, metadata=_metadata(ctx), timeout=_seconds(ctx)
        )
        ends = asyncio.get_running_loop().time() + self._stream_seconds
        try:
            while (answer := await self._next(call, ends)) is not grpc.aio.EOF:
                self._callers.judge(grpc.StatusCode.OK)
                yield await self._write(answer, is_json=body.is_json)
            _pass_back(ctx, await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            raise self._refused(ctx, error) from None
        finally:
            call.cancel()

    async def _next(self, call: Any, ends: float) -> Any:
        """Return the next answer of a stream; EOF after the last one.

        Raises:
            ConnectError: UNAVAILABLE: the stream has its age. Its reader may have gone without a word.
        """
        try:
            async with asyncio.timeout_at(ends):
                return await call.read()
        except TimeoutError:
            raise to_connect(errors.stream_too_old(self._stream_seconds)) from None

    async def _read(self, body: _Body) -> bytes:
        if not body.is_json:
            return body.raw
        try:
            return await off_loop.run_if_large(len(body.raw), _from_json, self._request, body.raw)
        except DomainError as error:
            raise to_connect(error) from None

    async def _write(self, answer: bytes, *, is_json: bool) -> bytes:
        if not is_json:
            return answer
        return await off_loop.run_if_large(len(answer), _to_json, self._answer, answer)

    def _refused(self, ctx: Any, error: grpc.aio.AioRpcError) -> ConnectError:
        trailing = error.trailing_metadata() or ()
        _pass_back(ctx, trailing)
        details = next((value for key, value in trailing if key == DETAILS_KEY), b"")
        if not details:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._callers.nobody_asked()
            return to_connect(errors.without_details(self._method.service, error.code().name))
        self._callers.judge(error.code())
        try:
            status = status_pb2.Status.FromString(details)
        except DecodeError:
            status = status_pb2.Status()
        return ConnectError(Code[_code(error.code().name)], error.details() or "", _details(status))


@contextlib.contextmanager
def _faults_hidden() -> Iterator[None]:
    """Answer INTERNAL to a fault of our own, whose text connectrpc would show to the caller."""
    try:
        yield
    except ConnectError:
        raise
    except Exception:  # noqa: BLE001 - every fault must become an answer
        _log.exception("failed")
        raise to_connect(errors.internal()) from None


def to_connect(error: DomainError) -> ConnectError:
    """Return a refusal of the gateway as connectrpc raises it."""
    status = to_status(error, errors.DOMAIN)
    return ConnectError(Code[_code(error.code)], status.message, _details(status))


def _details(status: status_pb2.Status) -> list[_Detail]:
    return [_Detail(detail) for detail in status.details]


def _code(name: str) -> str:
    return "CANCELED" if name == "CANCELLED" else name


def _from_json(request: Any, raw: bytes) -> bytes:
    """Return the request that a text of JSON is.

    Raises:
        InvalidArgumentError: MALFORMED_REQUEST: it is none, or has a field that the request does not have.
    """
    message = request()
    # protobuf takes an empty list, an empty text and zero for a message without fields.
    if raw.strip() and not raw.lstrip().startswith(b"{"):
        raise errors.malformed("it is no object of JSON")
    try:
        json_format.Parse(raw or b"{}", message)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise errors.malformed(str(error)) from None
    return bytes(message.SerializeToString())


def _to_json(answer: Any, raw: bytes) -> bytes:
    return json_format.MessageToJson(answer.FromString(raw), indent=None, ensure_ascii=False).encode()


def _metadata(ctx: Any) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key in PASSED_ON if (value := ctx.request_headers.get(key)))


def _pass_back(ctx: Any, trailing: Any) -> None:
    for key, value in trailing or ():
        if key in _PASSED_BACK:
            ctx.response_trailers[key] = value


def _seconds(ctx: Any) -> float | None:
    left: float | None = ctx.timeout_ms
    return None if left is None else max(left / 1000, 0.0)
