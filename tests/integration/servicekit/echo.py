"""A service of generic methods over well-known types, to test the server and client kits with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.wrappers_pb2 import StringValue

from integration.servicekit.sample import make_settings
from optaic.common.v1 import access_pb2
from servicekit import client, context
from servicekit.auth import make_authenticator
from servicekit.errors import FailedPreconditionError, NotFoundError, PreconditionViolation
from servicekit.server import Server
from servicekit.settings import ServiceSettings

SERVICE = "sample.v1.EchoService"
METHODS = [
    "echo",
    "write",
    "refuse",
    "crash",
    "fail_first",
    "hang",
    "take_long",
    "is_under_way",
    "ruled",
    "watch",
]


def _ruled_message() -> Any:
    """Return a message type with a request id, whose `name`, also in `children`, has two characters or more."""
    file = descriptor_pb2.FileDescriptorProto(
        name="sample/v1/ruled.proto", package="sample.v1", syntax="proto3"
    )
    message = file.message_type.add(name="Ruled")
    text = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    name = message.field.add(name="name", number=1, type=text)
    message.field.add(name="request_id", number=2, type=text)
    message.field.add(
        name="children",
        number=3,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
        type_name=".sample.v1.Ruled",
    )
    # (buf.validate.field).string.min_len = 2: field 1159 { field 14 { field 2: 2 } }
    name.options.MergeFromString(b"\xba\x48\x04\x72\x02\x10\x02")
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("sample.v1.Ruled"))


Ruled = _ruled_message()


def add_contract(service: str, permissions: Mapping[str, access_pb2.Permission.ValueType | None]) -> None:
    """Make the contract of a service known, with the permission of each of its methods, or with none."""
    package, _, name = service.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{service.replace('.', '/')}.proto",
        package=package,
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto", access_pb2.DESCRIPTOR.name],
    )
    text = ".google.protobuf.StringValue"
    contract = file.service.add(name=name)
    for each, permission in permissions.items():
        method = contract.method.add(name=each, input_type=text, output_type=text)
        if permission is not None:
            method.options.Extensions[access_pb2.permission] = permission
    descriptor_pool.Default().Add(file)


add_contract(SERVICE, dict.fromkeys(METHODS, access_pb2.PERMISSION_READ))


class EchoServicer:
    """What each method does is its name."""

    def __init__(self) -> None:
        self.requests: list[context.RequestContext] = []
        self.failures_left = 0
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()

    async def echo(self, request: StringValue, _: Any) -> StringValue:
        """Answer with the text; note who asked."""
        self.requests.append(context.current())
        return StringValue(value=request.value)

    async def write(self, request: StringValue, _: Any) -> StringValue:
        """Pretend to have written two events."""
        context.current().write_tokens.extend(["sample/1", "sample/2"])
        return request

    async def refuse(self, request: StringValue, _: Any) -> StringValue:
        """Refuse with everything that an error can carry."""
        raise FailedPreconditionError(
            "NOT_READY",
            f"{request.value} is not ready",
            metadata={"flow": "refresh"},
            preconditions=[PreconditionViolation("STALE", "a.refresh", "it is stale")],
        )

    async def crash(self, request: StringValue, _: Any) -> StringValue:
        """Fail by a fault of its own."""
        raise ZeroDivisionError(f"secret {request.value}")

    async def fail_first(self, request: StringValue, grpc_context: Any) -> StringValue:
        """Be unavailable for a while."""
        self.requests.append(context.current())
        if self.failures_left:
            self.failures_left -= 1
            await grpc_context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return request

    async def hang(self, request: StringValue, _: Any) -> StringValue:
        """Wait for the test."""
        self.requests.append(context.current())
        self.entered.set()
        await self.gate.wait()
        return request

    async def take_long(self, request: StringValue, _: Any) -> StringValue:
        """Answer after the seconds that the text says."""
        self.entered.set()
        await asyncio.sleep(float(request.value))
        return request

    async def is_under_way(self, _request: StringValue, _: Any) -> StringValue:
        """Answer "yes" once a long call has begun."""
        return StringValue(value="yes" if self.entered.is_set() else "")

    async def ruled(self, request: Any, _: Any) -> StringValue:
        """Answer with the request's id."""
        return StringValue(value=request.request_id)

    async def watch(self, request: StringValue, _: Any) -> AsyncIterator[StringValue]:
        """Answer twice, or refuse, then wait for the test."""
        if request.value == "refuse":
            raise NotFoundError("GONE", "nothing to watch")
        self.requests.append(context.current())
        yield StringValue(value=context.current().actor)
        yield request
        await self.gate.wait()


def add_echo(servicer: EchoServicer, server: Any) -> None:
    """Register as generated code does."""
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name),
            request_deserializer=(Ruled if name == "ruled" else StringValue).FromString,
            response_serializer=StringValue.SerializeToString,
        )
        for name in METHODS
        if name != "watch"
    }
    handlers["watch"] = grpc.unary_stream_rpc_method_handler(
        servicer.watch,
        request_deserializer=StringValue.FromString,
        response_serializer=StringValue.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


def serving_parts(servicer: EchoServicer, settings: ServiceSettings, **options: Any) -> Server:
    """Return the server, not started."""
    registrations = [(add_echo, servicer, SERVICE)]
    return Server(
        settings, "sample-service", "optaic.sample", registrations, make_authenticator(settings), **options
    )


@asynccontextmanager
async def serving(
    servicer: EchoServicer, *, settings: ServiceSettings | None = None, **options: Any
) -> AsyncIterator[Server]:
    """Serve on a free port."""
    settings = settings or make_settings(shutdown_grace_seconds=0.1, health_interval_seconds=0.05)
    server = serving_parts(servicer, settings, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def bare_channel(address: str) -> AsyncIterator[Any]:
    """Open a channel as a stranger would."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


@asynccontextmanager
async def kit_channel(address: str, token: str = "", **options: Any) -> AsyncIterator[client.Channel]:
    """Open a channel as a service does."""
    async with client.connect(address, token_source=lambda: token, **options) as channel:
        yield channel


def method(channel: Any, name: str) -> Callable[..., Any]:
    """Return a unary method of the service."""
    return channel.unary_unary(  # type: ignore[no-any-return]  # channels are untyped
        f"/{SERVICE}/{name}",
        request_serializer=lambda message: (
            message if isinstance(message, bytes) else message.SerializeToString()
        ),
        response_deserializer=StringValue.FromString,
    )


def watch(channel: Any) -> Callable[..., Any]:
    """Return the streaming method of the service."""
    return channel.unary_stream(  # type: ignore[no-any-return]  # channels are untyped
        f"/{SERVICE}/watch",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
