"""Gates before all that a process writes to: they count the moments at which it may die, and end it at one of them.

A moment is just before a write leaves the process, or just after it took effect and before the process hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from support.http_faults import read_request
from support.listener import Listener

_WRITE = re.compile(rb"(?:insert into|update|delete from) (\w+)", re.IGNORECASE)
_WRITTEN = (b"INSERT", b"UPDATE", b"DELETE")
_QUERIES = ("/filter", "/search")  # asked by POST, and write nothing
# The seals of audit records follow a clock of their own, so nobody knows how many of these moments a life has.
_SEALS = "postgres: audit_records, audit_seals"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


class Moments:
    """Counts while it is told to; at the chosen moment the process is killed, once."""

    def __init__(self, kill: Callable[[], None]) -> None:
        self._kill = kill
        self._chosen = 0
        self._is_counting = False
        self.passed: list[str] = []

    def begin(self, chosen: int) -> None:
        """Count from 1; 0 is never reached."""
        self._chosen, self._is_counting, self.passed = chosen, True, []

    def end(self) -> str:
        """Count no more; return the moment of the kill, if it was reached."""
        self._is_counting = False
        return self.passed[self._chosen - 1] if 0 < self._chosen <= len(self.passed) else ""

    async def reach(self, moment: str) -> None:
        """Return, unless it is the one.

        Raises:
            ConnectionAbortedError: The process is dead; nothing more of this connection is to pass.
        """
        if self._is_counting and not moment.startswith(_SEALS):
            self.passed.append(_ID.sub("...", moment))
            if len(self.passed) == self._chosen:
                self._kill()
                raise ConnectionAbortedError(moment)


class Gate(Listener):
    """Counts the moments that pass through it."""

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self._moments = moments


class FileGate(Gate):
    """Asked by `support.killable` before each change of a folder: a line, answered by a byte."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await self._moments.reach(f"files: {line.decode().strip()}")
            writer.write(b".")
            await writer.drain()


class ServerGate(Gate):
    """Stands before a server: use `url` instead of the server's."""

    def __init__(self, url: str, moments: Moments) -> None:
        super().__init__(moments)
        self._parts = urlsplit(url)

    @property
    def url(self) -> str:
        return self.instead_of(self._parts)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        there, back = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        try:
            yield there, back
        finally:
            back.close()


class HttpGate(ServerGate):
    """Answer one request for each connection."""

    def __init__(self, name: str, url: str, moments: Moments) -> None:
        super().__init__(url, moments)
        self._name = name

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        method, path = request.split(b"\r\n", 1)[0].decode().split()[:2]
        is_write = method != "GET" and not path.endswith(_QUERIES)
        moment = f"{self._name}: {method} {path}"
        if is_write:
            await self._moments.reach(moment)
        async with self._connected() as (there, back):
            back.write(request)
            answer = await there.read()
        if is_write:
            await self._moments.reach(f"{moment}, done")
        writer.write(answer)
        await writer.drain()


class NatsGate(ServerGate):
    """Knows the publications of events, and the acknowledgements of those that were consumed."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._connected() as (there, back):
            await _until_one_ends(self._ask(reader, back), _pump(there, writer))

    async def _ask(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while True:
            line = await reader.readuntil(b"\r\n")
            words = line.split()
            payload = b""
            if words and words[0] in {b"PUB", b"HPUB"}:
                payload = await reader.readexactly(int(words[-1]) + 2)
                subject = words[1].decode()
                if subject.startswith("optaic."):
                    await self._moments.reach(f"nats: {subject}")
                elif subject.startswith("$JS.ACK."):
                    await self._moments.reach("nats, acknowledgement")
            back.write(line + payload)
            await back.drain()


class SqlGate(ServerGate):
    """Knows the commits of transactions that wrote a row, and the writes outside of any transaction."""

    @property
    def url(self) -> str:
        """Without encryption: the first message is then the greeting, and all others can be read."""
        return f"{super().url}?sslmode=disable&gssencmode=disable"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._connected() as (there, back):
            size = await reader.readexactly(4)
            back.write(size + await reader.readexactly(int.from_bytes(size) - 4))
            session = _SqlSession(self._moments)
            await _until_one_ends(
                _relay_messages(reader, back, session.ask), _relay_messages(there, writer, session.answer)
            )


class _SqlSession:
    """One connection, message by message."""

    def __init__(self, moments: Moments) -> None:
        self._moments = moments
        self._statements: dict[bytes, bytes] = {}
        self._bound = b""
        self._is_idle = True
        self._has_written = False
        self._tables: list[str] = []
        self._awaited = ""

    async def ask(self, kind: bytes, body: bytes) -> None:
        """Look at what the process sends, before the server gets it."""
        if kind == b"P":
            name, _, rest = body.partition(b"\0")
            self._statements[name] = rest.partition(b"\0")[0]
        elif kind == b"B":
            self._bound = self._statements[body.split(b"\0", 2)[1]]
        elif kind in {b"Q", b"E"}:
            text = body if kind == b"Q" else self._bound
            tables = [table.decode() for table in _WRITE.findall(text)]
            self._tables += tables
            is_commit = text.upper().startswith(b"COMMIT")
            if (is_commit and self._has_written) or (self._is_idle and tables):
                self._awaited = f"postgres: {', '.join(dict.fromkeys(self._tables))}"
                await self._moments.reach(self._awaited)

    async def answer(self, kind: bytes, body: bytes) -> None:
        """Look at what the server answers, before the process gets it."""
        if kind == b"C":
            words = body.rstrip(b"\0").split()
            self._has_written |= words[0] in _WRITTEN and words[-1] != b"0"
        elif kind == b"Z":
            self._is_idle = body == b"I"
            if self._is_idle:
                self._has_written = False
                self._tables.clear()
            if self._awaited:
                awaited, self._awaited = self._awaited, ""
                await self._moments.reach(f"{awaited}, done")


async def _relay_messages(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    look: Callable[[bytes, bytes], Coroutine[Any, Any, None]],
) -> None:
    while True:
        head = await reader.readexactly(5)
        body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
        await look(head[:1], body)
        writer.write(head + body)
        await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def _until_one_ends(*directions: Coroutine[Any, Any, None]) -> None:
    tasks = {asyncio.create_task(direction) for direction in directions}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
