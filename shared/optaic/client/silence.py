"""Give notice when a watched service does not answer and when it answers again; ends and retries nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

Notice = Callable[[str], None]
_PATIENCE = 5.0
_LOOK = 0.25
_SETTLED = 1.0  # a stream that has lasted so long without an error is one, though nothing has come yet


@contextlib.asynccontextmanager
async def notify_while_waiting(notice: Notice) -> AsyncIterator[None]:
    """Give notice when the block takes long, and when it then ends."""
    was_notified = False

    async def notify_later() -> None:
        nonlocal was_notified
        await asyncio.sleep(_PATIENCE)
        notice("the services do not answer; waiting until they do")
        was_notified = True

    notifying = asyncio.create_task(notify_later())
    try:
        yield
        if was_notified:
            notice("the services answer again")
    finally:
        notifying.cancel()


class Silence:
    """The state of one stream: whether it is connected, when it was opened, whether it has failed since."""

    def __init__(self, name: str, notice: Notice, is_connected: Callable[[], bool]) -> None:
        self._name = name
        self._notice = notice
        self._is_connected = is_connected
        self._opened = time.monotonic()
        self._has_failed = False
        self._problem = ""

    def opened(self) -> None:
        """Note that the stream was opened."""
        self._opened = time.monotonic()

    def message_came(self) -> None:
        """Note that a message came."""
        self._has_failed = False

    def failed(self, problem: str) -> None:
        """Note that the stream broke off, and why."""
        self._has_failed, self._problem = True, problem

    @contextlib.asynccontextmanager
    async def notify_while(self) -> AsyncIterator[None]:
        """Give notice while the block runs."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()

    async def _look(self) -> None:
        answered, is_silent = time.monotonic(), False
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            if self._is_connected() and (not self._has_failed or now - self._opened > _SETTLED):
                answered = now
                if is_silent:
                    self._notice(f"{self._name} answers again")
                is_silent = False
            elif not is_silent and now - answered >= _PATIENCE:
                why = f" ({self._problem})" if self._problem else ""
                self._notice(f"{self._name} does not answer{why}; waiting until it does")
                is_silent = True
