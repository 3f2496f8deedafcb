"""The age of streams through the gateway, which ends those whose reader has left without a word."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from devstack.certificates import Authority
from devstack.state import write_private
from support.control_plane import ControlPlane
from support.gateway import RunningGateway, details_of, envelope, envelopes, gateway_before
from support.identities import caller
from support.polling import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
WATCH = "/optaic.status.v1.StatusService/WatchInstanceStatuses"


@pytest_asyncio.fixture(loop_scope="module")
async def short(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """Yield a gateway with HTTPS whose streams last a second, and a client of HTTP/2."""
    authority = Authority()
    files = {"https_certificate": tmp_path / "own.pem", "https_key": tmp_path / "own.key"}
    for path, text in zip(files.values(), authority.issue("gateway"), strict=True):
        write_private(path, text)
    context = ssl.create_default_context(cadata=authority.pem)
    async with (
        gateway_before(plane, auth="tokens", stream_seconds=1.0, verify=context, **files) as running,
        httpx.AsyncClient(
            base_url=running.url, http1=False, http2=True, trust_env=False, verify=context, timeout=30
        ) as client,
    ):
        yield RunningGateway(running.gateway, client)


async def watch(gateway: RunningGateway, headers: Mapping[str, str]) -> list[Any]:
    """Return all messages of a stream."""
    given = {**headers, "content-type": "application/connect+json"}
    async with gateway.client.stream("POST", WATCH, content=envelope(b"{}"), headers=given) as answer:
        content = b"".join([piece async for piece in answer.aiter_raw()])
    return [json.loads(message) for _, message in envelopes(content)]


async def test_a_stream_ends_at_its_age_so_that_its_reader_opens_it_again(short: RunningGateway) -> None:
    *messages, last = await watch(short, dict(caller("admin")))
    assert messages
    assert last["error"]["code"] == "unavailable"
    assert details_of(last["error"])["google.rpc.ErrorInfo"].reason == "STREAM_TOO_OLD"


async def test_a_stream_whose_reader_left_over_http2_ends_in_the_service_at_its_age(
    plane: ControlPlane, short: RunningGateway
) -> None:
    """HTTP/2 resets the stream and keeps the connection, of which the server says nothing."""
    streams: Any = plane.status.app.server._interceptor.streams
    places: Any = short.gateway.door._places[True]
    before = len(streams._admit)
    headers = {**dict(caller("admin")), "content-type": "application/connect+json"}
    async with short.client.stream("POST", WATCH, content=envelope(b"{}"), headers=headers) as answer:
        assert answer.http_version == "HTTP/2"
        assert await anext(answer.aiter_raw())
        assert (len(streams._admit), places.taken) == (before + 1, 1)
    await eventually(lambda: (len(streams._admit), places.taken) == (before, 0))
    assert (await short.client.get("/healthz")).status_code == 200
