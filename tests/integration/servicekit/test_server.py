"""What every method of every service gives its callers, over a real channel."""

import asyncio
import json
import logging
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from integration.servicekit.echo import SERVICE, EchoServicer, Ruled, bare_channel, method, serving, watch
from integration.servicekit.sample import make_settings
from servicekit.errors import UnavailableError
from servicekit.status import from_rpc_error
from support.polling import eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
TEXT = StringValue(value="hello")


@pytest.fixture
def servicer() -> EchoServicer:
    return EchoServicer()


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value


def trailer_of(call: Any) -> dict[str, Any]:
    return dict(call)


async def test_a_call_is_answered_with_its_request_id(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        call = method(channel, "echo")(TEXT, metadata=(("x-request-id", "my-id"),))
        assert (await call).value == "hello"
        assert trailer_of(await call.trailing_metadata()) == {"x-request-id": "my-id"}
    (request,) = servicer.requests
    assert (request.request_id, request.tenant_id, request.actor) == ("my-id", "default", "developer")


async def test_a_missing_or_odd_request_id_is_replaced(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        for metadata in ((), (("x-request-id", "a b\x7e" * 99),)):
            call = method(channel, "echo")(TEXT, metadata=metadata)
            await call
            assert len(trailer_of(await call.trailing_metadata())["x-request-id"]) == 36


async def test_the_trace_is_continued_or_begun(servicer: EchoServicer) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        await method(channel, "echo")(TEXT, metadata=(("traceparent", trace),))
        await method(channel, "echo")(TEXT, metadata=(("traceparent", "garbage"),))
    assert servicer.requests[0].traceparent == trace
    assert servicer.requests[1].traceparent.startswith("00-")


async def test_the_write_tokens_come_in_the_trailer(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        call = method(channel, "write")(TEXT)
        await call
        assert trailer_of(await call.trailing_metadata())["optaic-write-token"] == "sample/1,sample/2"


async def test_a_domain_error_arrives_with_all_its_details(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        error = await failure_of(method(channel, "refuse")(TEXT, metadata=(("x-request-id", "my-id"),)))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "hello is not ready"
    trailer = trailer_of(error.trailing_metadata())
    assert trailer["x-request-id"] == "my-id"
    status = status_pb2.Status.FromString(trailer["grpc-status-details-bin"])
    info, preconditions = error_details_pb2.ErrorInfo(), error_details_pb2.PreconditionFailure()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(preconditions)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "NOT_READY",
        "optaic.sample",
        {"flow": "refresh"},
    )
    assert preconditions.violations[0].subject == "a.refresh"


async def test_an_internal_error_reveals_no_details(
    servicer: EchoServicer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        error = await failure_of(method(channel, "crash")(TEXT))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert from_rpc_error(error).reason == "INTERNAL"
    assert "secret" not in repr(error)
    assert "ZeroDivisionError" in caplog.text + capsys.readouterr().out  # while the log has it all


async def test_malformed_bytes_are_the_callers_fault(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        error = await failure_of(method(channel, "echo")(b"\xff\xff\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(error).reason == "MALFORMED_REQUEST"


async def test_every_broken_rule_names_its_field(servicer: EchoServicer) -> None:
    request = Ruled(name="x", children=[Ruled(name="fine"), Ruled(name="")])
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        error = from_rpc_error(await failure_of(method(channel, "ruled")(request)))
        await method(channel, "ruled")(Ruled(name="xy"))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert [violation.field for violation in error.field_violations] == ["name", "children[1].name"]
    assert {violation.reason for violation in error.field_violations} == {"string.min_len"}


async def test_a_text_with_nul_is_refused_wherever_it_stands(servicer: EchoServicer) -> None:
    request = Ruled(name="a\0b", children=[Ruled(name="fine"), Ruled(name="xy", request_id="\0")])
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        error = from_rpc_error(await failure_of(method(channel, "ruled")(request)))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert [(violation.field, violation.reason) for violation in error.field_violations] == [
        ("name", "string.nul"),
        ("children[1].request_id", "string.nul"),
    ]


async def test_an_unknown_token_is_refused(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        error = await failure_of(
            method(channel, "echo")(TEXT, metadata=(("authorization", "Bearer nobody"),))
        )
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert servicer.requests == []


async def test_a_call_without_a_deadline_gets_one(servicer: EchoServicer) -> None:
    settings = make_settings(default_deadline_seconds=0.1, shutdown_grace_seconds=0.1)
    async with serving(servicer, settings=settings) as server, bare_channel(server.address) as channel:
        error = await failure_of(method(channel, "hang")(TEXT))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert from_rpc_error(error).reason == "DEADLINE_EXCEEDED"


async def test_the_callers_deadline_reaches_the_method(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        error = await failure_of(method(channel, "hang")(TEXT, timeout=0.2))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert servicer.requests[0].remaining() == 0


async def test_one_call_too_many_is_refused(servicer: EchoServicer) -> None:
    settings = make_settings(maximum_concurrent_rpcs=1, shutdown_grace_seconds=0.1)
    async with serving(servicer, settings=settings) as server, bare_channel(server.address) as channel:
        first = asyncio.ensure_future(_result(method(channel, "hang")(TEXT)))
        await servicer.entered.wait()
        error = await failure_of(method(channel, "echo")(TEXT))
        servicer.gate.set()
        assert (await first).value == "hello"
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def _result(call: Any) -> StringValue:
    return await call  # type: ignore[no-any-return]  # channels are untyped


async def test_a_stream_has_its_context_and_no_default_deadline(servicer: EchoServicer) -> None:
    settings = make_settings(default_deadline_seconds=0.05, shutdown_grace_seconds=0.1)
    async with serving(servicer, settings=settings) as server, bare_channel(server.address) as channel:
        call = watch(channel)(TEXT)
        assert [(await call.read()).value for _ in range(2)] == ["developer", "hello"]
        assert servicer.requests[0].deadline is None
        servicer.gate.set()
        assert await call.read() is grpc.aio.EOF
        assert "x-request-id" in trailer_of(await call.trailing_metadata())


async def test_an_error_in_a_stream_reaches_the_client_with_its_reason(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        error = await failure_of(watch(channel)(StringValue(value="refuse")).read())
    assert from_rpc_error(error).reason == "GONE"


async def test_a_watcher_that_leaves_leaves_nothing_behind(
    servicer: EchoServicer, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        call = watch(channel)(TEXT)
        await call.read()
        assert len(server._interceptor.streams._admit) == 1
        call.cancel()
        await eventually(lambda: not server._interceptor.streams._admit)
    assert "failed" not in capsys.readouterr().out


async def test_a_stopping_server_finishes_calls_and_ends_watches_as_unavailable(
    servicer: EchoServicer,
) -> None:
    settings = make_settings(shutdown_grace_seconds=20)
    async with serving(servicer, settings=settings) as server, bare_channel(server.address) as channel:
        watching = watch(channel)(TEXT)
        await watching.read()
        await watching.read()
        call = asyncio.ensure_future(_result(method(channel, "hang")(TEXT)))
        await servicer.entered.wait()
        stopping = asyncio.create_task(server.stop())
        error = await failure_of(watching.read())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert from_rpc_error(error).reason == "SERVER_STOPPING"
        assert not stopping.done()
        servicer.gate.set()
        assert (await call).value == "hello"
        await asyncio.wait_for(stopping, 10)


async def test_health_changes_with_the_dependencies(servicer: EchoServicer) -> None:
    broken: set[str] = set()

    def check_of(name: str) -> Any:
        async def check() -> None:
            if name in broken:
                raise UnavailableError("AWAY", name)

        return check

    async with (
        serving(
            servicer,
            dependencies={"database": check_of("database")},
            observed={"broker": check_of("broker")},
        ) as server,
        bare_channel(server.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)

        async def statuses() -> dict[str, int]:
            names = ("", SERVICE, "dependency/database", "dependency/broker")
            return {
                name: (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in names
            }

        assert set((await statuses()).values()) == {SERVING}
        broken.add("broker")

        async def only_the_broker_is_away() -> bool:
            found = await statuses()
            return found.pop("dependency/broker") == NOT_SERVING and set(found.values()) == {SERVING}

        await eventually(only_the_broker_is_away)
        broken.add("database")

        async def all_are_away() -> bool:
            return set((await statuses()).values()) == {NOT_SERVING}

        await eventually(all_are_away)
        broken.clear()

        async def all_are_back() -> bool:
            return set((await statuses()).values()) == {SERVING}

        await eventually(all_are_back)


async def test_a_dependency_that_hangs_counts_as_failing(
    servicer: EchoServicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.server._CHECK_TIMEOUT", 0.05)

    async def hang() -> None:
        await asyncio.Event().wait()

    async with (
        serving(servicer, dependencies={"database": hang}) as server,
        bare_channel(server.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING


async def test_reflection_names_the_services(servicer: EchoServicer) -> None:
    async with serving(servicer) as server, bare_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (response,) = [response async for response in stub.ServerReflectionInfo(iter([request]))]
    names = {service.name for service in response.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_two_servers_never_share_a_port(servicer: EchoServicer) -> None:
    async with serving(servicer) as server:
        with pytest.raises(RuntimeError):
            async with serving(EchoServicer(), settings=make_settings(listen=server.address)):
                pass


async def test_a_token_file_maps_tokens_to_tenant_and_actor(servicer: EchoServicer, tmp_path: Any) -> None:
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({digest: {"tenant": "acme", "actor": "ada"}}))
    settings = make_settings(auth="tokens", tokens_file=file, shutdown_grace_seconds=0.1)
    async with serving(servicer, settings=settings) as server, bare_channel(server.address) as channel:
        await method(channel, "echo")(TEXT, metadata=(("authorization", "Bearer secret"),))
        for metadata in (
            (),
            (("authorization", "Bearer development"),),
            (("authorization", "Basic secret"),),
        ):
            error = await failure_of(method(channel, "echo")(TEXT, metadata=metadata))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    (request,) = servicer.requests
    assert (request.tenant_id, request.actor, request.is_service) == ("acme", "ada", False)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("grpc").setLevel(logging.ERROR)
