"""Whom a server lets in: permissions of methods, health and reflection, and streams whose caller may not read on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from integration.servicekit.echo import (
    SERVICE,
    EchoServicer,
    add_contract,
    bare_channel,
    method,
    serving,
    watch,
)
from integration.servicekit.sample import make_settings
from servicekit.auth import make_authenticator
from servicekit.server import Server
from servicekit.settings import ServiceSettings
from servicekit.status import from_rpc_error
from servicekit.token_files import digest_of
from support.polling import eventually

TEXT = StringValue(value="hello")
UNKNOWN: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("authorization", "Bearer development"),),
    (("authorization", "Bearer nobody"),),
    (("authorization", "Basic one"),),
)


def signed(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def write(path: Path, **roles_by_token: list[str]) -> Path:
    entries = {
        digest_of(token): {"tenant": "acme", "actor": token, "roles": roles}
        for token, roles in roles_by_token.items()
    }
    return replace(path, json.dumps(entries))


def replace(path: Path, text: str) -> Path:
    """Write a file in one step: the service looks at it meanwhile."""
    written = path.with_suffix(".new")
    written.write_text(text)
    return written.replace(path)


def settings_of(path: Path, auth: str = "tokens", **values: Any) -> ServiceSettings:
    return make_settings(
        auth=auth,
        tokens_file=path,
        shutdown_grace_seconds=0.1,
        access_check_seconds=0.05,
        health_interval_seconds=0.05,
        **values,
    )


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


async def end_of(stream: Any) -> grpc.StatusCode:
    """Read a stream until the server ends it."""

    async def read_on() -> None:
        while await stream.read() is not grpc.aio.EOF:
            pass

    code: grpc.StatusCode = (await refusal(asyncio.wait_for(read_on(), 20))).code()
    return code


@pytest.mark.parametrize("auth", ["tokens", "development"])
async def test_a_call_without_the_permission_never_reaches_the_servicer(tmp_path: Path, auth: str) -> None:
    servicer = EchoServicer()
    settings = settings_of(write(tmp_path / "t.json", none=[], viewer=["viewer"]), auth)
    async with serving(servicer, settings=settings) as server, bare_channel(server.address) as channel:
        await method(channel, "echo")(TEXT, metadata=signed("viewer"))
        for name in ("echo", "ruled"):
            # What it sends is not even looked at.
            error = from_rpc_error(await refusal(method(channel, name)(b"\xff\xff", metadata=signed("none"))))
            assert (error.code, error.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
            assert error.metadata == {"permission": "read", "role": "viewer"}
        stream = watch(channel)(TEXT, metadata=signed("none"))
        assert (await refusal(stream.read())).code() is grpc.StatusCode.PERMISSION_DENIED
    assert len(servicer.requests) == 1


async def test_a_server_with_a_method_without_permission_does_not_start(tmp_path: Path) -> None:
    name = "sample.v1.ForgetfulService"
    add_contract(name, {"echo": None})

    def add(_servicer: object, server: Any) -> None:
        server.add_registered_method_handlers(
            name, {"echo": grpc.unary_unary_rpc_method_handler(EchoServicer().echo)}
        )

    settings = settings_of(write(tmp_path / "t.json"))
    server = Server(settings, "x", "x", [(add, None, name)], make_authenticator(settings))
    with pytest.raises(ValueError, match=f"/{name}/echo names no permission"):
        await server.start()


async def test_with_tokens_health_and_reflection_need_a_token(tmp_path: Path) -> None:
    settings = settings_of(write(tmp_path / "t.json", one=[]), service_token="own")
    async with serving(EchoServicer(), settings=settings) as server, bare_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        for metadata in UNKNOWN:
            for call in (
                health.Check(request, metadata=metadata),
                health.Watch(request, metadata=metadata).read(),
                # It asks nothing: a question that a server refuses to read may become an error of the client itself.
                reflect.ServerReflectionInfo(metadata=metadata).read(),
            ):
                error = from_rpc_error(await refusal(call))
                assert (error.code, error.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        for metadata in (signed("one"), (*signed("own"), ("optaic-tenant", "acme"))):
            serving_now = health_pb2.HealthCheckResponse.SERVING
            assert (await health.Check(request, metadata=metadata)).status == serving_now
            assert (await health.Watch(request, metadata=metadata).read()).status == serving_now
            answer = await reflect.ServerReflectionInfo(iter([question]), metadata=metadata).read()
            assert SERVICE in {each.name for each in answer.list_services_response.service}


async def test_a_removed_token_stops_at_once_and_its_streams_end(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", one=["viewer"], two=["viewer"])
    settings = settings_of(path)
    async with serving(EchoServicer(), settings=settings) as server, bare_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = [watch(channel)(TEXT, metadata=signed(token)) for token in ("one", "two")]
        observed = health.Watch(health_pb2.HealthCheckRequest(), metadata=signed("one"))
        for stream in (*watches, observed):
            await stream.read()
        write(path, two=["viewer"])

        async def is_refused() -> bool:
            try:
                await method(channel, "echo")(TEXT, metadata=signed("one"))
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.UNAUTHENTICATED
            return False

        await eventually(is_refused)
        assert await end_of(watches[0]) is grpc.StatusCode.UNAUTHENTICATED
        assert await end_of(observed) is grpc.StatusCode.UNAUTHENTICATED
        await method(channel, "echo")(TEXT, metadata=signed("two"))
        assert not watches[1].done()


async def test_a_role_taken_away_ends_the_streams_that_need_it(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", one=["viewer"])
    settings = settings_of(path)
    async with serving(EchoServicer(), settings=settings) as server, bare_channel(server.address) as channel:
        stream = watch(channel)(TEXT, metadata=signed("one"))
        await stream.read()
        write(path, one=["executor"])
        assert await end_of(stream) is grpc.StatusCode.PERMISSION_DENIED


async def test_a_broken_file_keeps_the_tokens_and_shows_in_health(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "t.json", one=["viewer"])
    settings = settings_of(path)
    async with serving(EchoServicer(), settings=settings) as server, bare_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="dependency/tokens")

        async def tokens_are(word: str) -> bool:
            answer = await health.Check(request, metadata=signed("one"))
            return bool(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == word)

        await eventually(lambda: tokens_are("SERVING"))
        replace(path, "{")
        await eventually(lambda: tokens_are("NOT_SERVING"))
        await method(channel, "echo")(TEXT, metadata=signed("one"))
        write(path, one=["viewer"], two=[])
        await eventually(lambda: tokens_are("SERVING"))
    output = capsys.readouterr().out
    assert output.count("tokens are not read again") == 1
    assert str(path) in output


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "10.0.0.1:1", ":0", "127.0.0.1.evil:0"])
def test_development_listens_on_this_machine_only(listen: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="OPTAIC_AUTH=tokens"):
        make_settings(listen=listen, insecure_plaintext=True)
    make_settings(listen=listen, insecure_plaintext=True, auth="tokens", tokens_file=tmp_path / "t.json")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:5", "[::1]:0", "unix:/tmp/x"])
def test_development_listens_on_every_form_of_loopback(listen: str) -> None:
    assert make_settings(listen=listen).listen == listen
