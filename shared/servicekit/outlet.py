"""Send live messages to an outside server, beside the work of the service and never in its way."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from servicekit.backlog import Backlog, Waiting
from servicekit.backoff import backoff

BATCH = 40  # of them hold the loop for about half a millisecond
# Before each call. Watchers see a change first, and all calls together take a few percent of the loop's time, however much waits.
_PAUSE = 0.05
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 5.0
_JITTER = 0.25
_REPORT_SECONDS = 60.0  # between two reports of what was dropped
_FAREWELL_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class PublisherAwayError(Exception):
    """The server did not take the publications, and may take them later."""


class PublicationRefusedError(Exception):
    """The server refused publications, and would refuse them again."""


@dataclass(frozen=True)
class Refusal:
    """The reason why a server did not take a publication; if it `is_final`, the server would never take it."""

    reason: str
    is_final: bool


@dataclass(frozen=True)
class Publication:
    """A live message for one or several channels.

    A server that has a publication of this `version` or a later one in a channel ignores it; 0: none is older than
    another. The server ignores a repetition with the same `idempotency_key`; empty: each is new. Those of one tenant delay none
    of another.
    """

    channels: tuple[str, ...]
    data: dict[str, Any]
    version: int = 0
    idempotency_key: str = ""
    tenant_id: str = ""


class Publisher(Protocol):
    """The sender of publications to a server of live messages."""

    async def publish(self, publications: Sequence[Publication]) -> dict[int, Refusal]:
        """Send them in this order; return why some were not taken, by their place. A repetition does no harm.

        Raises:
            PublisherAwayError: The server did not take them; some may have been taken.
        """
        ...

    async def ping(self) -> None:
        """Return if the server would take publications.

        Raises:
            PublisherAwayError: It would not.
        """
        ...


class Outlet:
    """The way of publications to a server: batched, in order within each channel, in turns of the tenants, and kept while it is away.

    `capacity` bounds what waits. Beyond it the newest publication of each channel is kept as long as there is room for one of
    each; the others are dropped and counted.
    """

    def __init__(
        self,
        publisher: Publisher,
        capacity: int,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._sleep = sleep
        self._clock = clock
        self._backlog = Backlog[Publication](capacity)
        self._woken = asyncio.Event()
        self._problem = ""
        self.dropped = 0  # since the start
        self._untold = 0  # of them
        self._report_time = -math.inf

    def __len__(self) -> int:
        """Return how many publications wait."""
        return len(self._backlog)

    def put(self, publications: Sequence[Publication]) -> None:
        """Send soon. It returns at once, whatever the server does."""
        for each in publications:
            if self._backlog.put(each.channels, each, each.tenant_id):
                self.dropped += 1
                self._untold += 1
        self._woken.set()

    async def run(self) -> None:
        """Send for ever; while the server is away, try again."""
        failures = 0
        while True:
            await self._wait_for_more()
            await self._sleep(_PAUSE)
            failures = await self._send(failures)
            if failures:
                wait = backoff(failures, first=_FIRST_BACKOFF, longest=_LONGEST_BACKOFF, jitter=_JITTER)
                await self._sleep(wait)

    async def close(self) -> None:
        """Send what remains, for at most a second and until the server fails, and say how many are lost; `run` has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                while self._backlog and not await self._send(0):
                    pass
        if self._backlog:
            _log.warning("live messages were not sent before the stop", count=len(self))
        self._report()

    async def _wait_for_more(self) -> None:
        """Return once something waits; what was dropped is told meanwhile."""
        while not self._backlog:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_report() if self._untold else None):
                    await self._woken.wait()
            if not self._until_report():
                self._report()

    async def _send(self, failures: int) -> int:
        """Send a batch; return how many calls in a row achieved nothing, and 1 if a part must be sent again."""
        batch = self._backlog.first(BATCH)
        try:
            refusals = await self._publisher.publish([each.item for each in batch])
        except Exception as error:  # noqa: BLE001 - nothing may end this loop
            self._note(f"the server takes no publications: {error!r}")
            return failures + 1
        if not self._settle(batch, refusals):
            return 0
        return failures + 1 if len(refusals) == len(batch) else 1

    def _settle(self, batch: Sequence[Waiting[Publication]], refusals: Mapping[int, Refusal]) -> bool:
        """Remove what need not be sent again; return whether something must be.

        What the server did not take, and may take later, is sent again unless the server took something later for the same
        channels: then it would come out of order, and is dropped.
        """
        taken = {each.key: each.number for index, each in enumerate(batch) if index not in refusals}
        left: dict[Hashable, int] = {}  # by key, the first that is sent again
        for index, each in enumerate(batch):
            if index in refusals and not refusals[index].is_final and each.number > taken.get(each.key, 0):
                left.setdefault(each.key, each.number)
        sent = [each for each in batch if each.number < left.get(each.key, each.number + 1)]
        self._backlog.remove(sent)
        self._backlog.postpone(left)
        settled = {each.number for each in sent}
        lost = [index for index in refusals if batch[index].number in settled]
        self.dropped += len(lost)
        self._untold += len(lost)
        shown = min(lost or refusals, default=None)
        if shown is None:
            self._note("")
        else:
            channel, reason = batch[shown].item.channels[0], refusals[shown].reason
            self._note(f"the server refused a publication to {channel}: {reason}")
        if not self._until_report():
            self._report()
        return bool(left)

    async def check(self) -> None:
        """Return if publications arrive, for the health of the service.

        Raises:
            PublisherAwayError: They do not arrive, and wait.
            PublicationRefusedError: The newest of them were refused.
        """
        if self._problem:
            dropped = f"; {self.dropped} were dropped" if self.dropped else ""
            message = f"{self._problem}; {len(self)} publications wait{dropped}"
            raise PublisherAwayError(message) if self._backlog else PublicationRefusedError(message)
        await self._publisher.ping()

    def _note(self, problem: str) -> None:
        """Remember what is wrong; say it when it begins and when it ends."""
        if bool(problem) != bool(self._problem):
            if problem:
                _log.warning("live messages do not arrive", problem=problem, waiting=len(self))
            else:
                _log.info("live messages arrive again", waiting=len(self))
        self._problem = problem

    def _until_report(self) -> float:
        """Return the seconds until what was dropped may be told again."""
        return max(0.0, self._report_time + _REPORT_SECONDS - self._clock())

    def _report(self) -> None:
        """Say how many publications were dropped since the last time."""
        if self._untold:
            _log.warning("live messages were dropped", count=self._untold, since_start=self.dropped)
            self._untold, self._report_time = 0, self._clock()
