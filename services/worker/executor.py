"""The warm executor: takes flow runs from the work pool and has each executed in a child; it reads no run record."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from redaction import redact
from servicekit.backoff import backoff
from worker.children import Child, Forkserver
from worker.config import Settings
from worker.deaths import report_death
from worker.prefect_adapter import (
    DueRun,
    FlowRunRefusedError,
    FlowRunUnusableError,
    WorkPool,
    execute_flow_run,
    make_ticket,
)
from worker.ticket import Ticket, TicketInvalidError

_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0
_CALL_SECONDS = 10.0  # one call to Prefect
_RECORD_ATTEMPTS = 60
_KILL_SECONDS = 4.0
_RECORD_SECONDS = 2.0
_log = structlog.get_logger(__name__)


class Executor:
    """A loop that polls until it is stopped. Prefect may be away, or come back, at any time."""

    def __init__(self, settings: Settings, pool: WorkPool, forkserver: Forkserver) -> None:
        self._settings = settings
        self._pool = pool
        self._forkserver = forkserver
        self._children: dict[UUID, Child] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Execute what is due until `stop` is set; then end what is under way."""
        watch = asyncio.create_task(self._watch_cancellations(), name="cancellations")
        failures, is_pool_sure = 0, False
        try:
            while not stop.is_set():
                try:
                    async with asyncio.timeout(_CALL_SECONDS):
                        if not is_pool_sure:
                            await self._pool.ensure()
                            is_pool_sure = True
                        await self._poll()
                    failures, delay = 0, self._settings.poll_seconds
                except Exception as error:  # noqa: BLE001 - whatever Prefect does, the worker stays
                    failures += 1
                    delay = backoff(failures, first=2 * self._settings.poll_seconds, longest=_LONGEST_DELAY)
                    _log.warning("Prefect does not answer", error=repr(error), delay=delay)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):  # wait_for may lose a cancellation on Python 3.11
                        await stop.wait()
        finally:
            watch.cancel()
            await self._drain()

    async def _poll(self) -> None:
        if len(self._tasks) >= self._settings.concurrency:
            return
        for flow_run in await self._pool.list_due():
            if len(self._tasks) >= self._settings.concurrency:
                return
            if flow_run.id not in self._tasks:
                task = asyncio.create_task(self._execute(flow_run), name=f"flow-run-{flow_run.id}")
                self._tasks[flow_run.id] = task
                task.add_done_callback(functools.partial(self._forget, flow_run.id))

    def _forget(self, flow_run_id: UUID, _: asyncio.Task[None]) -> None:
        self._tasks.pop(flow_run_id, None)

    async def _execute(self, flow_run: DueRun) -> None:
        try:
            await self._take(flow_run)
        except Exception as error:  # noqa: BLE001 - whatever it is, the flow run must not stay as it is
            _log.exception("flow run not executed", flow_run_id=str(flow_run.id), error=repr(error))
            text = f"The worker could not execute the flow run: {type(error).__name__}; see the worker's log."
            await self._record(lambda: self._pool.record_crashed(flow_run.id, text))

    async def _take(self, flow_run: DueRun) -> None:
        try:
            ticket = make_ticket(flow_run)
        except TicketInvalidError as error:
            text = redact(str(error))
            _log.warning("flow run refused", flow_run_id=str(flow_run.id), reason=text)
            await self._record(lambda: self._pool.record_failed(flow_run.id, text))
            return
        claimed = await self._claim(flow_run)
        if claimed is None:
            return
        try:
            child = await self._forkserver.run(
                execute_flow_run, *claimed, self._settings.log_level, ticket.start_secret
            )
        except Exception as error:  # noqa: BLE001 - no memory, no process: the flow run must not stay pending
            _log.exception("no child", flow_run_id=str(flow_run.id), error=repr(error))
            await self._record(lambda: self._pool.record_death(flow_run.id, 255))
            return
        self._children[flow_run.id] = child
        _log.info("flow run taken", flow_run_id=str(flow_run.id), child=child.pid)
        try:
            code = await child.wait()
        finally:
            self._children.pop(flow_run.id, None)
        _log.info("child ended", flow_run_id=str(flow_run.id), exit_code=code)
        if not code:
            return
        if child.was_sent_a_signal:
            await self._record(lambda: self._pool.record_death(flow_run.id, code))
            return
        # Only this process knows how the child ended.
        await asyncio.gather(
            self._report_death(ticket, code),
            self._record(lambda: self._pool.record_death(flow_run.id, code)),
        )

    async def _claim(self, flow_run: DueRun) -> tuple[str, str] | None:
        """Return what a child needs to execute it; None where it is not ours, or was ended, or stays in the pool."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                entrypoint = await self._pool.find_entrypoint(flow_run)
                return await self._pool.claim(flow_run), entrypoint
        except FlowRunRefusedError as error:
            _log.info("flow run not claimed", flow_run_id=str(flow_run.id), reason=str(error))
        except FlowRunUnusableError as error:
            text = str(error)
            _log.warning("flow run not claimed", flow_run_id=str(flow_run.id), reason=text)
            await self._record(lambda: self._pool.record_crashed(flow_run.id, text))
        except Exception as error:  # noqa: BLE001 - it stays in the pool and is seen again
            _log.warning("flow run not claimed", flow_run_id=str(flow_run.id), error=repr(error))
        return None

    async def _report_death(self, ticket: Ticket, code: int) -> None:
        try:
            await report_death(ticket, self._settings, code)
        except Exception as error:  # noqa: BLE001 - run-service finds out by itself, later
            _log.exception("death not reported", flow_run_id=ticket.orchestrator_run_id, error=repr(error))

    async def _watch_cancellations(self) -> None:
        while True:
            await asyncio.sleep(self._settings.cancellation_poll_seconds)
            if not self._children:
                continue
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    for flow_run_id in await self._pool.list_cancelling(set(self._children)):
                        # Recorded first, or the death of the child would count as a crash.
                        await self._pool.record_cancelled(flow_run_id)
                        if child := self._children.get(flow_run_id):
                            child.send(signal.SIGKILL)
            except Exception as error:  # noqa: BLE001 - tried again
                _log.warning("cancellations not seen", error=repr(error))

    async def _record(self, call: Callable[[], Awaitable[None]]) -> None:
        """Tell Prefect, again and again while it is away."""
        for attempt in range(1, _RECORD_ATTEMPTS + 1):
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    await call()
            except Exception as error:  # noqa: BLE001 - tried again
                _log.warning("state not recorded", error=repr(error), attempt=attempt)
                await asyncio.sleep(backoff(attempt, first=_FIRST_DELAY, longest=_LONGEST_DELAY))
            else:
                return
        _log.error("state not recorded", attempts=_RECORD_ATTEMPTS)

    async def _drain(self) -> None:
        """Let runs end by themselves; then have them report that they were stopped; then kill them."""
        try:
            await self._wait(self._settings.worker_grace_seconds)
            for number, seconds in ((signal.SIGTERM, _KILL_SECONDS), (signal.SIGKILL, _RECORD_SECONDS)):
                for child in [*self._children.values()]:
                    child.send(number)
                await self._wait(seconds)
        finally:
            for task in [*self._tasks.values()]:
                task.cancel()
            await self._forkserver.stop()

    async def _wait(self, seconds: float) -> None:
        if self._tasks:
            await asyncio.wait([*self._tasks.values()], timeout=seconds)
