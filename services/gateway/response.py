"""An answer of HTTP: every one has the headers that keep browsers from doing more with it than show it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gateway import errors
from gateway.request import Message, Send
from servicekit.errors import DomainError

# No answer of the API is a page: nothing in it is loaded, run or framed.
_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
# The server takes a piece whole, read or not: that nobody reads is seen only while later pieces wait.
_PIECE_BYTES = 64 * 1024
_ENCRYPTED = {"strict-transport-security": "max-age=31536000"}


class StalledError(Exception):
    """The caller does not read its answer."""


class Response:
    """The answer to one request: it guards what is sent, and knows whether it has begun."""

    def __init__(self, send: Send, scheme: str, seconds: float) -> None:
        self._send = send
        self._headers = {**_HEADERS, **(_ENCRYPTED if scheme == "https" else {})}
        self._seconds = seconds
        self.has_begun = False

    async def send(self, message: Message) -> None:
        """Send a message of ASGI.

        Raises:
            StalledError: The caller does not take it.
        """
        if message["type"] == "http.response.start":
            self.has_begun = True
            given = {name.lower() for name, _ in message["headers"]}
            guards = [
                (name.encode(), value.encode())
                for name, value in self._headers.items()
                if name.encode() not in given
            ]
            message = {**message, "headers": [*message["headers"], *guards]}
        body = message.get("body", b"")
        last = max(len(body) - 1, 0) // _PIECE_BYTES * _PIECE_BYTES
        for start in range(0, last, _PIECE_BYTES):
            await self._pass_on({**message, "body": body[start : start + _PIECE_BYTES], "more_body": True})
        await self._pass_on({**message, "body": body[last:]} if last else message)

    async def _pass_on(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            raise StalledError from None

    async def answer(
        self,
        status: int,
        body: bytes,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        *,
        has_body: bool = True,
    ) -> None:
        """Send a whole answer; without its body, which a HEAD does not want, its length stays."""
        given = {"content-type": media_type, "content-length": str(len(body)), **(headers or {})}
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
            }
        )
        await self.send({"type": "http.response.body", "body": body if has_body else b"", "more_body": False})

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin an answer that comes in pieces."""
        given = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": given})

    async def go_on(self, piece: bytes) -> None:
        """Send the next piece."""
        await self.send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        """End an answer that came in pieces."""
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(
        self,
        error: DomainError,
        headers: Mapping[str, str] | None = None,
        domain: str = errors.DOMAIN,
    ) -> None:
        """Send a refusal; where an answer has begun, nothing can follow."""
        if not self.has_begun:
            status, body = errors.http_status_of(error), errors.to_json(error, domain)
            await self.answer(status, body, "application/json", headers)
