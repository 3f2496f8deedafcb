"""A TCP proxy that understands HTTP just enough to strike at a chosen request."""

from __future__ import annotations

import asyncio
from typing import Literal
from urllib.parse import urlsplit

from support.listener import Listener

Fault = Literal["down", "slow", "500", "503", "lost"]
_REFUSALS: dict[str, bytes] = {"500": b"500 Internal Server Error", "503": b"503 Service Unavailable"}
_END = b"\r\n\r\n"


class HttpFaults(Listener):
    """`async with HttpFaults(url) as proxy`: use `proxy.url`, then `strike`.

    down: the connection breaks before the server hears of the request; slow: the answer never comes, nor does the
    server hear; 500 and 503: the server says that it failed, and did nothing; lost: it did it, and the answer is lost.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._parts = urlsplit(url)
        self._fault: Fault = "down"
        self._passing = 0
        self._striking = 0
        self._at = b""
        self.struck = 0

    @property
    def url(self) -> str:
        """The address to use instead of the server's."""
        return self.instead_of(self._parts)

    def strike(self, fault: Fault, *, after: int, times: int, at: str = "") -> None:
        """Let the first requests pass, spoil the next ones, let all others pass; `at` counts those whose first line has it."""
        self._fault, self._passing, self._striking, self.struck = fault, after, times, 0
        self._at = at.encode()

    def heal(self) -> None:
        """Let everything pass."""
        self._striking = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request for each connection."""
        request = await read_request(reader)
        fault = self._next() if self._at in request.partition(b"\r\n")[0] else None
        if fault == "down":
            writer.transport.abort()
            return
        if fault == "slow":
            await reader.read()  # until the client has had enough
            return
        if refusal := _REFUSALS.get(fault or ""):
            writer.write(b"HTTP/1.1 " + refusal + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        there, back = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        try:
            back.write(request)
            await back.drain()
            answer = await there.read()
        finally:
            back.close()
        if fault == "lost":
            writer.transport.abort()
            return
        writer.write(answer)
        await writer.drain()

    def _next(self) -> Fault | None:
        if self._passing > 0:
            self._passing -= 1
            return None
        if self._striking > 0:
            self._striking -= 1
            self.struck += 1
            return self._fault
        return None


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one request; mark it as the last of its connection."""
    head = await reader.readuntil(_END)
    lines = head.removesuffix(_END).split(b"\r\n")
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines[1:])
    }
    body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
    kept = [line for line in lines[1:] if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([lines[0], *kept, b"Connection: close"]) + _END + body
