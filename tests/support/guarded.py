"""HTTP servers that answer as a test says: one that knows whom it answers, and others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

JSON = "application/json"


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: str
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Answer:
    """What comes back; a type that is empty is not told."""

    body: str
    status: int = 200
    type: str = JSON


@asynccontextmanager
async def answering(answer: Callable[[Asked], Answer]) -> AsyncIterator[str]:
    """Answer every request; yields the server's address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        fields = (line.partition(": ") for line in lines)
        headers = {name.lower(): value for name, _, value in fields}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        given = answer(Asked(first.split()[1], headers, content.decode()))
        body = given.body.encode()
        kind = f"Content-Type: {given.type}\r\n" if given.type else ""
        head = f"HTTP/1.1 {given.status} {HTTPStatus(given.status).phrase}\r\n{kind}"
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def guarded(authorization: str, answer: str) -> AbstractAsyncContextManager[str]:
    """Answer JSON to requests with this header, 401 to all others; yields the server's address."""

    def reply(asked: Asked) -> Answer:
        is_known = asked.headers.get("authorization") == authorization
        return Answer(answer) if is_known else Answer("{}", 401)

    return answering(reply)
