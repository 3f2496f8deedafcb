"""Follow the logs of runs: while anybody follows a log, this process reads its end once for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from run_service.config import Settings
from run_service.domain.errors import logs_unavailable, run_not_found
from run_service.domain.log_lines import (
    LogLine,
    PlacedLine,
    Position,
    lines_after,
    micros_of,
    moment_of,
)
from run_service.domain.statuses import ENDED
from run_service.ports import Orchestrator, OrchestratorRefusedError, OrchestratorUnavailableError
from run_service.store import runs as run_store
from run_service.store.records import Record, datetime_of
from run_service.use_cases.watching import Watches
from servicekit.backoff import backoff
from servicekit.clock import Clock
from servicekit.database import Database

LINES_AT_ONCE = 200  # read from the orchestrator
_MOST_LINES = 1000  # that a tail remembers for those who follow it
_SLOWEST = 4  # times the shortest pause, while nothing comes
_QUIET_SECONDS = 3.0  # after the end of a run whose last line is not known
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LogBatch:
    """Lines in order with the position after each, the position after all, and, in the last batch, whether lines are missing."""

    lines: Sequence[PlacedLine]
    position: Position
    is_incomplete: bool = False


async def read_lines(
    orchestrator: Orchestrator, flow_run_id: str, after: Position
) -> tuple[list[PlacedLine], bool]:
    """Return lines after a position, and whether there may be more.

    Raises:
        OrchestratorUnavailableError: There is no answer.
        OrchestratorRefusedError: The orchestrator does not take the question.
    """
    wanted = LINES_AT_ONCE + after.number
    found = await orchestrator.list_log_lines(
        flow_run_id, start=moment_of(after.time), end=None, min_level=0, limit=wanted
    )
    has_more = len(found) >= wanted
    lines = lines_after(found, after)
    if has_more and not lines:  # copies of one line only
        return await read_lines(orchestrator, flow_run_id, Position(after.time + 1))
    return lines, has_more


class _Tail:
    """The end of one run's log, from the position of the first who follows it."""

    def __init__(self, record: Record, start: Position) -> None:
        self.record = record
        self.start = start  # before the first line that is remembered
        self.end = start
        self.lines: deque[PlacedLine] = deque()
        self.is_done = False
        self.is_incomplete = False
        self.failure: Exception | None = None
        self.followers = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.woken = asyncio.Event()  # the run has changed
        self._changed = asyncio.Event()

    def append(self, lines: Sequence[PlacedLine]) -> None:
        """Remember lines, and forget the oldest ones if there are too many."""
        if not lines:
            return
        self.lines.extend(lines)
        self.end = lines[-1][1]
        while len(self.lines) > _MOST_LINES:
            self.start = self.lines.popleft()[1]
        self.tell()

    def after(self, position: Position) -> list[PlacedLine] | None:
        """Return the lines after a position; None if the first of them are not remembered."""
        if position < self.start:
            return None
        return [placed for placed in self.lines if placed[1] > position][:LINES_AT_ONCE]

    def tell(self) -> None:
        """Wake all who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Wait for a change; return whether there was one within the time."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True


class LogTails:
    """The logs that are followed in this process."""

    def __init__(
        self,
        database: Database,
        orchestrator: Orchestrator,
        watches: Watches,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self.orchestrator = orchestrator
        self._database = database
        self._watches = watches
        self._settings = settings
        self._clock = clock
        self._tails: dict[tuple[str, str], _Tail] = {}

    async def follow(
        self, tenant_id: str, run_id: str, position: Position, is_wanted: Callable[[LogLine], bool]
    ) -> AsyncGenerator[LogBatch, None]:
        """Yield the wanted lines after a position as they come, until the run has ended and its last line was sent.

        If no line comes for a while, yield a batch without lines.

        Raises:
            NotFoundError: RUN_NOT_FOUND.
            UnavailableError: DEPENDENCY_UNAVAILABLE: the orchestrator has not answered for a while.
        """
        async with self._database.read(tenant_id) as connection:
            record = await run_store.get_run(connection, tenant_id, run_id)
        if record is None:
            raise run_not_found(run_id)
        tail = self._join((tenant_id, run_id), record, position)
        try:
            told = time.monotonic() - self._settings.watch_bookmark_seconds  # the first one is told at once
            while True:
                lines = tail.after(position)
                if lines is None:
                    lines = await self._catch_up(tail, position)
                    if not lines:  # the log was deleted meanwhile
                        position = tail.start
                        continue
                position = lines[-1][1] if lines else position
                if found := [placed for placed in lines if is_wanted(placed[0])]:
                    yield LogBatch(found, position)
                    told = time.monotonic()
                elif lines:
                    continue
                elif tail.is_done:
                    yield LogBatch((), position, tail.is_incomplete)
                    return
                elif tail.failure is not None:
                    raise tail.failure
                else:
                    left = told + self._settings.watch_bookmark_seconds - time.monotonic()
                    if not await tail.wait(max(0.0, left)):
                        yield LogBatch((), position)
                        told = time.monotonic()
        finally:
            self._leave((tenant_id, run_id), tail)

    async def _catch_up(self, tail: _Tail, position: Position) -> list[PlacedLine]:
        """Read lines that the tail does not remember."""
        try:
            lines, _ = await read_lines(self.orchestrator, tail.record.run.orchestrator_run_id, position)
        except (OrchestratorUnavailableError, OrchestratorRefusedError) as error:
            raise logs_unavailable() from error
        return lines

    def _join(self, key: tuple[str, str], record: Record, position: Position) -> _Tail:
        tail = self._tails.get(key)
        if tail is None or tail.failure is not None:
            tail = self._tails[key] = _Tail(record, position)
            tail.tasks = [
                asyncio.create_task(self._guard(tail, work), name=f"log-{key[1]}")
                for work in (self._watch(tail, *key), self._poll(tail))
            ]
        tail.followers += 1
        return tail

    def _leave(self, key: tuple[str, str], tail: _Tail) -> None:
        tail.followers -= 1
        if not tail.followers:
            for task in tail.tasks:
                task.cancel()
            if self._tails.get(key) is tail:
                del self._tails[key]

    async def _guard(self, tail: _Tail, work: Coroutine[None, None, None]) -> None:
        """Do one of a tail's works; its failure is that of all who follow the tail."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, those who follow must hear of it
            tail.failure = tail.failure or error
            tail.tell()

    async def _watch(self, tail: _Tail, tenant_id: str, run_id: str) -> None:
        async with aclosing(self._watches.watch(tenant_id, run_id)) as records:
            async for record in records:
                if record.revision != tail.record.revision:
                    tail.record = record
                    tail.woken.set()

    async def _poll(self, tail: _Tail) -> None:
        settings = self._settings
        shortest = pause = settings.log_poll_seconds
        failures, answered = 0, time.monotonic()
        while True:
            tail.woken.clear()
            record = tail.record  # as it was before the look: lines that come after it are for the next
            try:
                lines, has_more = await self._look(tail, record)
            except (OrchestratorUnavailableError, OrchestratorRefusedError) as error:
                _log.warning("log not read", run_id=record.run.run_id, error=repr(error))
                if time.monotonic() - answered > settings.log_patience_seconds:
                    raise logs_unavailable() from error
                failures += 1
                pause = backoff(failures, first=shortest, longest=_SLOWEST * shortest)
            else:
                failures, answered = 0, time.monotonic()
                pause = shortest if lines else min(_SLOWEST * shortest, 1.5 * pause)
                tail.append(lines)
                if has_more:
                    continue
                if self._is_over(tail, record, is_quiet=not lines):
                    tail.is_done = True
                    tail.tell()
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await tail.woken.wait()

    async def _look(self, tail: _Tail, record: Record) -> tuple[list[PlacedLine], bool]:
        if not record.run.orchestrator_run_id:
            return [], False
        return await read_lines(self.orchestrator, record.run.orchestrator_run_id, tail.end)

    def _is_over(self, tail: _Tail, record: Record, *, is_quiet: bool) -> bool:
        """Return whether no line comes any more, or not soon enough."""
        if record.status not in ENDED:
            return False
        if not record.run.HasField("start_time"):
            return True
        passed = (self._clock.now() - datetime_of(record.run.end_time)).total_seconds()
        if record.last_log_time is None:
            return is_quiet and passed > min(_QUIET_SECONDS, self._settings.log_settle_seconds)
        if tail.end.time >= micros_of(record.last_log_time):
            return True
        tail.is_incomplete = passed > self._settings.log_settle_seconds
        return tail.is_incomplete
