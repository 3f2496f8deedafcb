"""One tenant asks for more than its share; the others are answered all the same."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from devstack.postgres import Postgres
from integration.servicekit import echo
from integration.servicekit.sample import SAMPLE_PACKAGE, make_settings
from optaic.client.connection import Connection
from servicekit import context
from servicekit.context import RequestContext
from servicekit.database import Database, lock_tenant
from servicekit.status import from_rpc_error
from support.identities import caller, token_of, tokens_file
from support.polling import eventually
from support.postgres import service_database

ATTACKER, VICTIM = caller("researcher", "acme"), caller("researcher", "other")


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[tuple[echo.EchoServicer, Any, str]]:
    """Serve with limits, as in production; yields the servicer, a channel and the address."""
    settings = make_settings(auth="tokens", tokens_file=tokens_file(), shutdown_grace_seconds=0.1, **limits)
    servicer = echo.EchoServicer()
    async with (
        echo.serving(servicer, settings=settings) as server,
        echo.bare_channel(server.address) as channel,
    ):
        try:
            yield servicer, channel, server.address
        finally:
            servicer.gate.set()


async def refused(call: Any) -> Any:
    """Return the typed refusal of a call."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await asyncio.wait_for(call, 10)
    return from_rpc_error(error.value)


async def greet(channel: Any, metadata: Any) -> None:
    answer = await echo.method(channel, "echo")(StringValue(value="hello"), metadata=metadata, timeout=10)
    assert answer.value == "hello"


@pytest.mark.asyncio
async def test_a_thousand_streams_of_one_tenant_leave_room_for_another() -> None:
    async with serving(tenant_streams=50, maximum_concurrent_rpcs=200) as (_, channel, _address):
        streams = [
            echo.watch(channel)(StringValue(value="x"), metadata=ATTACKER, timeout=60) for _ in range(1_000)
        ]
        codes = await asyncio.gather(*(first_of(stream) for stream in streams))
        assert codes.count("open") == 50
        refusals = {code for code in codes if code != "open"}
        assert "TOO_MANY_STREAMS" in refusals
        await greet(channel, VICTIM)
        own = echo.watch(channel)(StringValue(value="x"), metadata=VICTIM, timeout=10)
        assert await first_of(own) == "open"
        for stream in (*streams, own):
            stream.cancel()
        await asyncio.gather(*(ended(stream) for stream in streams))
        again = echo.watch(channel)(StringValue(value="x"), metadata=ATTACKER, timeout=10)
        assert await first_of(again) == "open"


async def first_of(stream: Any) -> str:
    """Return `open` if a stream answers, else the reason of its refusal."""
    try:
        await stream.read()
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason
    return "open"


async def ended(stream: Any) -> None:
    """Wait until the server has seen the end of a stream."""
    try:
        await stream.code()
    except asyncio.CancelledError:
        return


@pytest.mark.asyncio
async def test_streams_of_health_count_as_well() -> None:
    async with serving(tenant_streams=3) as (_, channel, _address):
        stub = health_pb2_grpc.HealthStub(channel)
        streams = [stub.Watch(health_pb2.HealthCheckRequest(), metadata=ATTACKER) for _ in range(4)]
        reasons = [await first_of(stream) for stream in streams]
        assert sorted(reasons) == ["TOO_MANY_STREAMS"] + ["open"] * 3
        assert await first_of(stub.Watch(health_pb2.HealthCheckRequest(), metadata=VICTIM)) == "open"


@pytest.mark.asyncio
async def test_calls_that_hang_leave_room_for_another_tenant() -> None:
    async with serving(tenant_calls=5) as (servicer, channel, _):
        hang = echo.method(channel, "hang")
        hanging = [hang(StringValue(value="x"), metadata=ATTACKER, timeout=30) for _ in range(5)]
        await eventually(lambda: len(servicer.requests) == 5, 10, "five calls are not under way")
        refusal = await refused(echo.method(channel, "echo")(StringValue(value="x"), metadata=ATTACKER))
        assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
        assert refusal.retry_seconds
        await greet(channel, VICTIM)
        servicer.gate.set()
        await asyncio.gather(*hanging)
        await greet(channel, ATTACKER)


@pytest.mark.asyncio
async def test_a_flood_of_calls_is_refused_with_the_time_to_wait() -> None:
    async with serving(tenant_calls_per_second=5) as (_, channel, _address):
        results = await asyncio.gather(*(greet(channel, ATTACKER) for _ in range(50)), return_exceptions=True)
        refusals = [from_rpc_error(each) for each in results if isinstance(each, grpc.aio.AioRpcError)]
        assert len(refusals) >= 30
        assert {each.reason for each in refusals} == {"RATE_LIMITED"}
        assert all(0 < (each.retry_seconds or 0) <= 1 for each in refusals)
        await greet(channel, VICTIM)


@pytest.mark.asyncio
async def test_the_client_waits_as_long_as_it_is_told_and_asks_again() -> None:
    async with serving(tenant_calls_per_second=20) as (_, _channel, address):
        connection = Connection({"echo": address}, token_of("researcher", "acme"), 10.0)

        class Stub:
            def __init__(self, channel: Any) -> None:
                self.echo = echo.method(channel, "echo")

        try:
            async with asyncio.timeout(30):
                await asyncio.gather(
                    *(
                        connection.call("echo", Stub, "echo", StringValue(value=str(number)))
                        for number in range(60)
                    )
                )
        finally:
            await connection.close()


@pytest.mark.asyncio
async def test_a_request_with_too_many_bytes_is_refused_unread() -> None:
    async with serving() as (servicer, channel, _):
        call = echo.method(channel, "echo")(StringValue(value="x" * 100_000), metadata=ATTACKER)
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")
        assert servicer.requests == []


@pytest.mark.asyncio
async def test_metadata_of_a_megabyte_is_refused() -> None:
    async with serving() as (servicer, channel, _):
        metadata = (*ATTACKER, *((f"key{number}", "x" * 1_000) for number in range(1_000)))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await echo.method(channel, "echo")(StringValue(value="x"), metadata=metadata, timeout=10)
        assert error.value.code() is not grpc.StatusCode.OK
        assert servicer.requests == []
        await greet(channel, VICTIM)


def called_by(tenant_id: str) -> Any:
    """Return the context of a tenant's call."""
    return context.bind(
        RequestContext(tenant_id, "ada", "r1", context.new_traceparent(), frozenset({"researcher"}))
    )


@pytest.mark.asyncio
async def test_transactions_that_wait_for_a_lock_leave_connections_to_another_tenant(
    postgres_server: Postgres,
) -> None:
    del postgres_server
    async with service_database("sample", SAMPLE_PACKAGE) as urls:
        database = Database(make_settings(**urls, auth="tokens", pool_timeout_seconds=10))
        under_way = 0

        async def apply_event() -> None:
            async with asyncio.timeout(5), database.transaction("acme"):
                pass

        async def wait_for_the_tenants_lock() -> None:
            nonlocal under_way
            with called_by("acme"):
                async with database.transaction("acme") as connection:
                    under_way += 1
                    await lock_tenant(connection, "acme")

        with called_by("acme"):
            async with database.transaction("acme") as connection:
                await lock_tenant(connection, "acme")
                waiting = [asyncio.create_task(wait_for_the_tenants_lock()) for _ in range(50)]
                await eventually(lambda: under_way == 5)
                for _ in range(20):
                    with called_by("other"):
                        async with asyncio.timeout(5), database.transaction("other") as own:
                            await lock_tenant(own, "other")
                    # What the service does by itself, such as to apply events, is no call of the tenant.
                    await asyncio.create_task(apply_event(), context=contextvars.Context())
                assert under_way == 5, "a tenant holds six of the eight connections"
        await asyncio.gather(*waiting)
        await database.close()


@pytest.mark.asyncio
async def test_statements_that_hang_leave_room_for_those_of_another_tenant(postgres_server: Postgres) -> None:
    del postgres_server
    async with service_database("sample", SAMPLE_PACKAGE) as urls:
        database = Database(make_settings(**urls, auth="tokens"))
        sleep = sa.text("select pg_sleep(1)")
        hanging = [asyncio.create_task(database.fetch("acme", sleep, {})) for _ in range(12)]
        async with asyncio.timeout(5):
            await asyncio.gather(*(database.fetch("other", sa.text("select 1"), {}) for _ in range(20)))
        assert not hanging[-1].done(), "the other one's statements did not wait for all of them"
        await asyncio.gather(*hanging)
        await database.close()


@pytest.mark.asyncio
async def test_a_flood_of_refused_calls_does_not_fill_the_log() -> None:
    with capture_logs() as lines:
        async with serving(tenant_calls_per_second=1) as (_, channel, _address):
            for metadata in (ATTACKER, (("authorization", "Bearer wrong"),)):
                echoed = [
                    echo.method(channel, "echo")(StringValue(value="x"), metadata=metadata)
                    for _ in range(500)
                ]
                await asyncio.gather(*echoed, return_exceptions=True)
    refused_calls = [line for line in lines if line["event"] == "refused"]
    counted = {
        (line["tenant"], line["reason"]): line["count"] for line in lines if line["event"] == "calls refused"
    }
    assert len(refused_calls) == 60
    assert counted["", "UNAUTHENTICATED"] == 440
    assert counted["acme", "RATE_LIMITED"] >= 490
