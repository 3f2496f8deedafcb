"""Connections that show no token take no more of a service than it has to spare."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from typing import Any

import pytest

from integration.servicekit import echo
from integration.servicekit.sample import make_settings
from servicekit.server import _most_connections
from support.identities import caller
from support.polling import eventually

_MOST = 5
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_NO_HTTP = b"GET / HTTP/1.1\r\n\r\n"


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, int]]:
    settings = make_settings(maximum_connections=_MOST, shutdown_grace_seconds=0.1)
    async with echo.serving(echo.EchoServicer(), settings=settings) as server:
        host, _, port = server.address.rpartition(":")
        yield host, int(port)


async def is_answered(address: tuple[str, int]) -> bool:
    async with echo.bare_channel(f"{address[0]}:{address[1]}") as channel:
        with contextlib.suppress(Exception):
            await channel.unary_unary("/grpc.health.v1.Health/Check")(
                b"", metadata=caller("viewer"), timeout=5
            )
            return True
    return False


async def test_connections_beyond_the_limit_are_closed_and_those_before_are_kept() -> None:
    async with serving() as address, contextlib.AsyncExitStack() as stack:
        opened: list[tuple[asyncio.StreamReader, Any]] = []
        for _ in range(2 * _MOST):
            reader, writer = await asyncio.open_connection(*address)
            stack.callback(writer.close)
            writer.write(_PREFACE)
            opened.append((reader, writer))
            await asyncio.sleep(0.02)  # so that they arrive in this order
        first = [await _first_byte(reader) for reader, _ in opened]
        assert first == [True] * _MOST + [False] * _MOST
        assert not await is_answered(address)
        for _, writer in opened:
            writer.close()
        await eventually(lambda: is_answered(address))


async def _first_byte(reader: asyncio.StreamReader) -> bool:
    """Return whether a connection is answered; an end, or a reset, is no answer."""
    with contextlib.suppress(ConnectionError):
        return bool(await reader.read(1))
    return False


@pytest.mark.parametrize(
    "sent", [b"", _NO_HTTP, _PREFACE, _PREFACE[:9]], ids=["nothing", "HTTP/1", "preface", "part"]
)
async def test_a_connection_that_has_ended_counts_no_more(sent: bytes) -> None:
    async with serving() as address:
        for _ in range(4 * _MOST):
            _, writer = await asyncio.open_connection(*address)
            writer.write(sent)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await eventually(lambda: is_answered(address))


def test_descriptors_are_left_for_the_service_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for descriptors, expected in ((1_024, 768), (20_000, 4_000), (resource.RLIM_INFINITY, 4_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, number=descriptors: (number, number))
        assert _most_connections(4_000) == expected
