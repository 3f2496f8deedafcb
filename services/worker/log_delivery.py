"""Deliver the logs of runs to the orchestrator while the runs go on; no run waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from optaic.rules.run_logs import NOTES
from servicekit.backoff import backoff
from worker.log_spool import Spool, TimedLine
from worker.run_lines import Line
from worker.run_output import prepare_folder

_PAUSE = 0.5  # between two looks for new lines
_LONGEST_PAUSE = 5.0  # while the orchestrator is away
_CALL_SECONDS = 10.0
_MOST_LINES, _FEWEST_LINES = (
    2_000,
    20,
)  # of one call; half as many after each that fails, until all have arrived
_MOST_LEFT = 100  # files of runs that have ended; the oldest are given up
_log = structlog.get_logger(__name__)

Send = Callable[[str, Sequence[TimedLine]], Awaitable[None]]


class LinesRefusedError(Exception):
    """The orchestrator will never take these lines."""


class SpoolBrokenError(Exception):
    """The file of a run's lines cannot be read any more."""


class LogDelivery:
    """The delivery of one process; what it has not delivered stays in files, for the next one."""

    def __init__(self, folder: Path, send: Send) -> None:
        self._folder = folder
        self._send = send
        self._spools: list[Spool] = []
        self._is_ready = False
        self._news = asyncio.Event()
        self._failures = 0
        self._most_lines = _MOST_LINES

    @contextlib.asynccontextmanager
    async def keep(self, run_id: str, flow_run_id: str) -> AsyncIterator[str]:
        """Yield the file for the lines of a run, to which nothing is added after the block.

        It is empty if the file cannot be made, which costs the log and not the run.
        """
        try:
            spool = await asyncio.to_thread(self._create, run_id, flow_run_id)
        except OSError as error:
            _log.warning("log not kept", run_id=run_id, error=repr(error))
            yield ""
            return
        self._spools.append(spool)
        try:
            yield str(spool.path)
        finally:
            spool.is_finished = True
            self._news.set()

    async def run(self) -> None:
        """Deliver until this is cancelled; first what an earlier process has left."""
        with contextlib.suppress(OSError):
            self._spools += await asyncio.to_thread(self._take_over)
        while True:
            if await self._deliver_all():
                continue
            if self._failures:
                await asyncio.sleep(backoff(self._failures, first=_PAUSE, longest=_LONGEST_PAUSE))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE):
                    await self._news.wait()
            self._news.clear()

    async def drain(self, seconds: float) -> None:
        """Deliver what there is, for a limited time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self._deliver_all():
                    pass

    def _create(self, run_id: str, flow_run_id: str) -> Spool:
        if not self._is_ready:
            prepare_folder(self._folder.parent)  # the folder for what runs print, which may not be there yet
            prepare_folder(self._folder)
            self._is_ready = True
        return Spool.create(self._folder, run_id, flow_run_id)

    def _take_over(self) -> list[Spool]:
        return Spool.list_left(self._folder) if self._folder.is_dir() else []

    async def _deliver_all(self) -> bool:
        """Deliver a part of each file, so that a run that prints much delays no other; return whether there may be more."""
        has_more = False
        for spool in list(self._spools):
            try:
                if await self._deliver(spool):
                    has_more, self._failures = True, 0
            except SpoolBrokenError as error:
                _log.warning("lines of a log lost", flow_run_id=spool.flow_run_id, error=repr(error))
                self._forget(spool)
            except Exception as error:  # noqa: BLE001 - whatever the orchestrator does, the lines wait
                self._failures += 1
                # A busy orchestrator takes few in time; with as many again it would be asked in vain for ever.
                self._most_lines = max(_FEWEST_LINES, self._most_lines // 2)
                _log.warning("lines of logs wait", runs=len(self._spools), error=repr(error))
                has_more = False
                break
        else:
            if not has_more:
                self._most_lines = _MOST_LINES
        left = [spool for spool in self._spools if spool.is_finished]
        for spool in left[:-_MOST_LEFT]:
            _log.warning("lines of a log lost", flow_run_id=spool.flow_run_id, error="too many wait")
            self._forget(spool)
        return has_more

    async def _deliver(self, spool: Spool) -> bool:
        """Deliver the next lines of a file; return whether there may be more."""
        is_finished = spool.is_finished  # before the look: what comes after it is for the next
        try:
            lines, size = await asyncio.to_thread(spool.read, self._most_lines)
        except OSError as error:
            raise SpoolBrokenError(repr(error)) from error
        if size:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._send_or_lose(spool.flow_run_id, lines)
            await asyncio.to_thread(spool.mark_sent, size)
        elif is_finished:
            self._forget(spool)
        return bool(size)

    async def _send_or_lose(self, flow_run_id: str, lines: Sequence[TimedLine]) -> None:
        if not lines:
            return
        try:
            await self._send(flow_run_id, lines)
        except LinesRefusedError as error:
            _log.warning("lines of a log lost", flow_run_id=flow_run_id, lines=len(lines), error=str(error))
            text = f"[optaic: {len(lines)} lines were lost, because they were refused]"
            with contextlib.suppress(LinesRefusedError):
                note = TimedLine(lines[-1].time, Line(logging.WARNING, NOTES, text))
                await self._send(flow_run_id, [note])

    def _forget(self, spool: Spool) -> None:
        if spool in self._spools:
            self._spools.remove(spool)
            spool.remove()


@contextlib.asynccontextmanager
async def delivering(folder: Path, send: Send, farewell_seconds: float) -> AsyncIterator[LogDelivery]:
    """Deliver in the background; at the end, deliver for a limited time what there is."""
    delivery = LogDelivery(folder, send)
    task = asyncio.create_task(delivery.run(), name="logs")
    try:
        yield delivery
    finally:
        task.cancel()
        await asyncio.wait({task})
        await delivery.drain(farewell_seconds)
