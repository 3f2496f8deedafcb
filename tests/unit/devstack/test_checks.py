"""What is said of a server that does not answer 200, whatever it sends; nothing raises, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from devstack import checks

_PATIENCE = 0.5  # seconds, where the server never ends what it says
_STRANGERS = {
    "no bytes at all": b"",
    "a first line without an end": b"x" * 200_000,
    "a status line that is too long": b"HTTP/1.1 200 " + b"O" * 200_000 + b"\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "200 within what is no status": b"+OK 200 messages\r\n",
    "bytes": bytes(range(256)) * 10 + b"\n",
    "a line that is cut off": b"HTTP/1.1 20",
    "a status that is no number": b"HTTP/1.1 OK fine\r\n\r\n",
}


@contextlib.asynccontextmanager
async def _server(answer: bytes, then: bytes = b"", *, ends: bool = True) -> AsyncIterator[str]:
    """Sends an answer, then something again and again until nobody listens; its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError), contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            while then:
                writer.write(then)
                await writer.drain()
            if not ends:
                await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("answer", _STRANGERS.values(), ids=_STRANGERS)
async def test_an_answer_that_is_not_http_is_reported(answer: bytes) -> None:
    async with _server(answer) as address:
        problem = await checks.find_http_problem(address, "/health")
    assert f"what listens on {address} does not speak HTTP" in problem
    assert len(problem) < 500


@pytest.mark.parametrize(
    "line", ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 \r\n", "HTTP/1.1 200\r\n", "HTTP/2 200\n"]
)
async def test_an_answer_200_counts_as_healthy(line: str) -> None:
    async with _server(line.encode(), b"x: y\r\n" * 500) as address:  # its headers never end
        assert await checks.find_http_problem(address, "/health") == ""


async def test_an_answer_other_than_200_is_reported() -> None:
    async with _server(b"HTTP/1.1 503 Busy\r\ncontent-length: 9\r\n\r\n", b"") as address:
        assert await checks.find_http_problem(address, "/health") == "/health: HTTP/1.1 503 Busy"
    pieces = b"HTTP/1.1 500 No\r\n\r\ndisk full 200 times"
    async with _server(pieces, ends=False) as address:  # it says no more and stays
        problem = await checks.find_http_problem(address, "/health", _PATIENCE)
    assert problem == "/health: HTTP/1.1 500 No disk full 200 times"


async def test_headers_without_an_end_are_not_all_read() -> None:
    async with _server(b"HTTP/1.1 404 Not Found\r\n", b"x: y\r\n" * 1000) as address:
        assert await checks.find_http_problem(address, "/health") == "/health: HTTP/1.1 404 Not Found"


async def test_a_server_that_does_not_answer_has_a_problem() -> None:
    async with _server(b"", ends=False) as address:
        assert "TimeoutError" in await checks.find_http_problem(address, "/health", _PATIENCE)
    assert "ConnectionRefusedError" in await checks.find_http_problem(address, "/health")
