"""What a service's calls to other services carry, and how they fail."""

import asyncio
import time

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from integration.servicekit.echo import EchoServicer, Ruled, kit_channel, method, serving, watch
from integration.servicekit.sample import make_settings
from servicekit import context
from servicekit.context import RequestContext
from servicekit.settings import ServiceSettings
from servicekit.status import from_rpc_error

TEXT = StringValue(value="hello")
TOKEN = "the services' own"


@pytest.fixture
def servicer() -> EchoServicer:
    return EchoServicer()


@pytest.fixture
def settings() -> ServiceSettings:
    return make_settings(service_token=TOKEN, shutdown_grace_seconds=0.1)


async def test_identity_ids_and_deadline_of_the_request_travel_along(
    servicer: EchoServicer, settings: ServiceSettings
) -> None:
    request = RequestContext(
        "acme", "ada", "request-1", context.new_traceparent(), deadline=time.monotonic() + 2
    )
    async with serving(servicer, settings=settings) as server, kit_channel(server.address, TOKEN) as channel:
        with context.bind(request):
            await method(channel, "echo")(TEXT)
    (seen,) = servicer.requests
    assert (seen.tenant_id, seen.actor, seen.request_id) == ("acme", "ada", "request-1")
    assert seen.traceparent == request.traceparent
    assert seen.is_service
    remaining = request.remaining()
    assert remaining is not None
    assert seen.deadline is not None
    assert abs(seen.deadline - time.monotonic() - remaining) < 1.5


async def test_a_call_of_a_service_without_a_tenant_is_refused(
    servicer: EchoServicer, settings: ServiceSettings
) -> None:
    async with serving(servicer, settings=settings) as server, kit_channel(server.address, TOKEN) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await method(channel, "echo")(TEXT)
    assert from_rpc_error(failure.value).reason == "TENANT_REQUIRED"


async def test_only_a_service_may_name_a_tenant(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, kit_channel(server.address, "development") as channel:
        request = RequestContext("acme", "ada", "request-1", context.new_traceparent())
        with context.bind(request):
            await method(channel, "echo")(TEXT)
    assert servicer.requests[0].tenant_id == "default"


async def test_without_a_request_each_call_has_its_own_ids(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, kit_channel(server.address) as channel:
        await method(channel, "echo")(TEXT)
        await method(channel, "echo")(TEXT)
    first, second = servicer.requests
    assert first.request_id != second.request_id
    assert first.deadline is not None


async def test_unavailable_is_tried_again_under_the_same_ids(servicer: EchoServicer) -> None:
    servicer.failures_left = 2
    async with serving(servicer) as server, kit_channel(server.address) as channel:
        assert (await method(channel, "fail_first")(TEXT)).value == "hello"
    assert len(servicer.requests) == 3
    assert len({request.request_id for request in servicer.requests}) == 1


async def test_a_refusal_is_not_tried_again(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, kit_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await method(channel, "refuse")(TEXT)
    error = from_rpc_error(failure.value)
    assert (error.code, error.reason, error.metadata) == (
        "FAILED_PRECONDITION",
        "NOT_READY",
        {"flow": "refresh"},
    )
    assert error.preconditions[0].type == "STALE"


async def test_a_mutation_without_a_request_id_gets_one(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, kit_channel(server.address) as channel:
        assert len((await method(channel, "ruled")(Ruled(name="xy"))).value) == 36
        assert (await method(channel, "ruled")(Ruled(name="xy", request_id="mine"))).value == "mine"


async def test_a_call_ends_at_the_default_deadline(servicer: EchoServicer) -> None:
    async with (
        serving(servicer) as server,
        kit_channel(server.address, default_deadline=0.2) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await method(channel, "hang")(TEXT)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_never_outlives_the_request_it_serves(servicer: EchoServicer) -> None:
    request = RequestContext("acme", "ada", "1", context.new_traceparent(), deadline=time.monotonic() + 0.2)
    async with serving(servicer) as server, kit_channel(server.address) as channel:
        with context.bind(request), pytest.raises(grpc.aio.AioRpcError) as failure:
            await method(channel, "hang")(TEXT, timeout=60)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_watch_has_no_deadline_of_its_own(servicer: EchoServicer) -> None:
    async with (
        serving(servicer) as server,
        kit_channel(server.address, default_deadline=0.05) as channel,
    ):
        call = watch(channel)(TEXT)
        assert (await call.read()).value == "developer"
        assert (await call.read()).value == "hello"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(call.read())), 0.2)
        servicer.gate.set()


async def test_a_server_that_starts_later_is_found(servicer: EchoServicer) -> None:
    async with serving(servicer) as server:
        address = server.address
    later = make_settings(listen=address, shutdown_grace_seconds=0.1)
    async with kit_channel(address) as channel:
        call = asyncio.ensure_future(_value(method(channel, "echo")(TEXT)))
        async with serving(servicer, settings=later):
            assert await call == "hello"


async def _value(call: object) -> str:
    return (await call).value  # type: ignore[misc, no-any-return]  # channels are untyped
