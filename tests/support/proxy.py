"""A TCP proxy between a service and a server, that can cut, stall or go deaf."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from urllib.parse import urlsplit

from support.listener import Listener


class Proxy(Listener):
    """`async with Proxy("nats://127.0.0.1:4222") as proxy`: use `proxy.url`, then break the connection.

    `cut` closes what is open and refuses what comes, `cut_after` does so once the server has been sent so many bytes, `stall`
    holds bytes back in both directions, `deafen` throws away what the server says; `heal` lets everything pass again. With `tls`
    clients connect over TLS.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self._parts = urlsplit(url)
        self._passing = asyncio.Event()
        self._passing.set()
        self._is_cut = False
        self._is_deaf = False
        self._left: int | None = None  # so many bytes may still reach the server
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The address to use instead of the server's."""
        return self.instead_of(self._parts)

    def cut(self) -> None:
        """Close all connections, and refuse new ones."""
        self._is_cut = True
        self._close_connections()

    def cut_after(self, count: int) -> None:
        """Let so many bytes pass to the server, then cut: in the middle of what is sent."""
        self._left = count

    def stall(self) -> None:
        """Keep the connections open, and let nothing through."""
        self._passing.clear()

    def deafen(self) -> None:
        """Let requests pass, and lose all answers."""
        self._is_deaf = True

    def heal(self) -> None:
        """Let everything pass again."""
        self._is_cut = self._is_deaf = False
        self._left = None
        self._passing.set()

    def _close_connections(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            server_reader, server_writer = await asyncio.open_connection(
                self._parts.hostname, self._parts.port
            )
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(server_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server_writer, is_answer=False))
                group.create_task(self._pump(server_reader, writer, is_answer=True))
        finally:
            for each in (writer, server_writer):
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._passing.wait()
                if not is_answer and self._left is not None:
                    data, self._left = data[: self._left], self._left - len(data[: self._left])
                if not (is_answer and self._is_deaf):
                    writer.write(data)
                    await writer.drain()
                if self._left == 0:
                    self.cut()
        writer.transport.abort()
