"""How an issuer is asked over HTTP, and what a server does with the tokens that it signs."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from integration.servicekit.echo import SERVICE, EchoServicer, add_echo, bare_channel, method, watch
from integration.servicekit.sample import make_settings
from servicekit.oidc import issuers
from servicekit.server import Server
from servicekit.status import from_rpc_error
from support.http_faults import read_request
from support.listener import Listener
from support.oidc import STRANGER, OidcWorld, sign

TEXT = StringValue(value="hello")
Answer = Callable[[bytes, asyncio.StreamWriter], Any]


class Pages(Listener):
    """A web server whose answers a test writes byte by byte."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer
        self.requests: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        self.requests.append(request)
        await self._answer(request, writer)


def page(body: bytes, status: str = "200 OK", *fields: str) -> Answer:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *fields, "", ""]
        writer.write("\r\n".join(head).encode() + body)
        await writer.drain()

    return answer


async def never_ending(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" " * 65536)
        await writer.drain()


async def dripping(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)  # the pace of the server


async def silent(_: bytes, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def test_a_page_is_read_without_any_secret_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with Pages(page(b"{}")) as pages:
        assert await issuers.fetch(f"{pages.url}/keys") == b"{}"
        (request,) = pages.requests
    assert request.startswith(b"GET /keys HTTP/1.1")
    assert b"authorization" not in request.lower()
    assert b"cookie" not in request.lower()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_no_redirect_is_followed(status: str) -> None:
    async with Pages(page(b"{}")) as target:
        async with Pages(page(b"", status, f"location: {target.url}/keys")) as pages:
            with pytest.raises(OSError, match="status 30"):
                await issuers.fetch(pages.url)
        assert target.requests == []


@pytest.mark.parametrize("status", ["404 Not Found", "500 Error", "204 No Content"])
async def test_another_status_is_no_answer(status: str) -> None:
    async with Pages(page(b"{}" if status[0] != "2" else b"", status)) as pages:
        with pytest.raises(OSError, match="status"):
            await issuers.fetch(pages.url)


@pytest.mark.parametrize("answer", [never_ending, page(b"[" * 300_000)])
async def test_a_long_answer_is_not_read_to_its_end(answer: Answer) -> None:
    async with Pages(answer) as pages:
        with pytest.raises(OSError, match="longer"):
            await issuers.fetch(pages.url)


async def test_a_packed_answer_is_not_unpacked() -> None:
    packed = gzip.compress(b" " * 10_000_000)
    async with Pages(page(packed, "200 OK", "content-encoding: gzip")) as pages:
        assert await issuers.fetch(pages.url) == packed


async def test_a_server_that_is_away_or_speaks_otherwise_is_no_answer() -> None:
    async with Pages(page(b"")) as pages:
        url = pages.url
    for each in (url, f"{url}/\x00", "http://127.0.0.1:1"):
        with pytest.raises(OSError, match="does not answer"):
            await issuers.fetch(each)


@pytest.mark.parametrize("answer", [silent, dripping])
async def test_a_slow_issuer_is_given_up(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers, "_TIMEOUT_SECONDS", 0.3)
    async with Pages(answer) as pages:
        issuer = issuers.Issuer(pages.url, refresh_seconds=300)
        began = time.monotonic()
        await issuer.read_again()
        assert time.monotonic() - began < 3
        assert issuer.keys is None
        assert issuer.problem


@asynccontextmanager
async def serving(world: OidcWorld) -> AsyncIterator[tuple[EchoServicer, Any]]:
    """Serve the callers of the world's issuer; yield what serves, and a channel to it."""
    servicer = EchoServicer()
    settings = make_settings(shutdown_grace_seconds=0.1, access_check_seconds=0.05)
    server = Server(settings, "sample", "optaic.sample", [(add_echo, servicer, SERVICE)], world.authenticator)
    await server.start()
    try:
        async with bare_channel(server.address) as channel:
            yield servicer, channel
    finally:
        await server.stop()


def signed(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(call, 20)
    return refused.value


async def test_a_caller_is_whom_its_token_names_and_every_refusal_is_typed() -> None:
    world = OidcWorld()
    async with serving(world) as (servicer, channel):
        await method(channel, "echo")(TEXT, metadata=signed(world.token()))
        (request,) = servicer.requests
        assert (request.tenant_id, request.actor) == ("acme", "ada")
        assert request.roles == {"researcher"}
        for token, code, metadata in (
            (sign(world.claims(), STRANGER), "UNAUTHENTICATED", {}),
            (world.token(exp=1), "UNAUTHENTICATED", {"claim": "exp"}),
            (world.token(tenant=...), "UNAUTHENTICATED", {"claim": "tenant"}),
            (world.token(roles=...), "PERMISSION_DENIED", {"claim": "roles"}),
            (world.token(roles=["users"]), "PERMISSION_DENIED", {"permission": "read", "role": "viewer"}),
            ("", "UNAUTHENTICATED", {}),
        ):
            error = from_rpc_error(await refusal(method(channel, "echo")(TEXT, metadata=signed(token))))
            assert (error.code, error.reason, error.metadata) == (code, code, metadata)
    assert len(servicer.requests) == 1


async def test_an_open_stream_ends_when_its_token_expires() -> None:
    world = OidcWorld()
    async with serving(world) as (_, channel):
        short, long = (
            watch(channel)(TEXT, metadata=signed(world.token(exp=world.now + s))) for s in (10, 900)
        )
        for stream in (short, long):
            await stream.read()
        world.advance(10 + 61)

        async def read_on() -> None:
            while await short.read() is not grpc.aio.EOF:
                pass

        assert (await refusal(read_on())).code() is grpc.StatusCode.UNAUTHENTICATED
        assert not long.done()


async def test_an_open_stream_goes_on_while_the_issuer_is_away() -> None:
    world = OidcWorld()
    async with serving(world) as (_, channel):
        stream = watch(channel)(TEXT, metadata=signed(world.token(exp=world.now + 9000)))
        await stream.read()
        world.issuer.answers.clear()
        for _ in range(3):
            world.advance(301)
            await asyncio.sleep(0.2)  # the time of some checks of open streams
        assert not stream.done()
        await method(channel, "echo")(TEXT, metadata=signed(world.token()))
