"""Know the streams that are open, and end each that must end, with the reason why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from servicekit.errors import (
    DomainError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)

_REVOKED = (UnauthenticatedError, PermissionDeniedError, InvalidArgumentError)
Admit = Callable[[], Awaitable[object]]


class OpenStreams:
    """The tasks that serve streams; each is cancelled when its stream must end."""

    def __init__(self) -> None:
        self._admit: dict[asyncio.Task[Any], Admit] = {}
        self._causes: dict[asyncio.Task[Any], DomainError] = {}
        self._is_stopping = False

    def add(self, task: asyncio.Task[Any], admit: Admit) -> None:
        """Remember a stream; `admit` raises once its caller may not read it any more."""
        self._admit[task] = admit
        if self._is_stopping:
            task.cancel()

    def discard(self, task: asyncio.Task[Any]) -> None:
        """Forget a stream that has ended."""
        self._admit.pop(task, None)
        self._causes.pop(task, None)

    def cause_of(self, task: asyncio.Task[Any]) -> DomainError | None:
        """Return why we have cancelled a stream; None if its client has."""
        if self._is_stopping:
            return UnavailableError("SERVER_STOPPING", "the server is stopping; reconnect")
        return self._causes.get(task)

    def stop(self) -> None:
        """End all streams with UNAVAILABLE, so that their clients go to another replica."""
        self._is_stopping = True
        for task in self._admit:
            task.cancel()

    async def check(self) -> None:
        """End the streams whose callers may not read them any more; a check that cannot be made ends none."""
        for task, admit in list(self._admit.items()):
            try:
                await admit()
            except _REVOKED as error:
                if task in self._admit and task not in self._causes:
                    self._causes[task] = error
                    task.cancel()
            except DomainError:
                continue
            await asyncio.sleep(0)  # calls are answered in between, however many streams there are
