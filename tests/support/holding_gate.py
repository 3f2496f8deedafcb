"""A gate at which processes wait at a chosen moment of a run until they end, or until it is opened."""

from __future__ import annotations

import asyncio

from support.listener import Listener


class HoldingGate(Listener):
    """Lets everybody go on, except at the moment that it holds."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self._moment = ""
        self._room = 0
        self._full = asyncio.Event()
        self._open = asyncio.Event()

    def hold(self, moment: str, count: int = 1) -> None:
        """Hold the next processes that reach a moment, so many of them."""
        self._moment, self._room = moment, count
        self._full, self._open = asyncio.Event(), asyncio.Event()

    async def wait_until_full(self, seconds: float) -> None:
        """Wait until all that are to be held are there."""
        try:
            async with asyncio.timeout(seconds):
                await self._full.wait()
        except TimeoutError:
            raise AssertionError(f"{self._room} more do not come to the moment {self._moment!r}") from None

    def open(self) -> None:
        """Let everybody go on."""
        self._room = 0
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, moment = (await reader.readline()).decode().strip().partition(" ")
        if moment == self._moment and self._room > 0:
            self._room -= 1
            if self._room == 0:
                self._full.set()
            opened, ended = asyncio.ensure_future(self._open.wait()), asyncio.ensure_future(reader.read())
            await asyncio.wait({opened, ended}, return_when=asyncio.FIRST_COMPLETED)
            opened.cancel()
            ended.cancel()
        writer.write(b".")
        await writer.drain()
