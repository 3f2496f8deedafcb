"""The warm executor: takes flow runs from the work pool, executes all of them, and says in Prefect how they end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from optaic.run.v1.run_report_service_pb2 import DispatchedRun
from redaction import redact
from servicekit.backoff import backoff
from servicekit.errors import DomainError
from worker.config import Settings
from worker.execution import ABANDONED, execute_run
from worker.isolation import StartGuardian
from worker.log_delivery import LogDelivery
from worker.named_runs import PoolViews, read_named
from worker.peers import Peers
from worker.prefect_adapter import (
    DueRun,
    FlowRunNotWaitingError,
    FlowRunRefusedError,
    WorkPool,
    make_ticket,
)
from worker.telemetry import Telemetry
from worker.ticket import Ticket, TicketInvalidError, check_tenant

_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0
_CALL_SECONDS = 10.0  # one call to Prefect
_RECORD_ATTEMPTS = 60
_FAREWELL_SECONDS = 4.0
_RECORD_SECONDS = 2.0
_FIRST_HINT_DELAY, _LONGEST_HINT_DELAY = 0.5, 30.0
_CALM = 5  # how many times longer the worker waits between two looks while run-service tells it when to look
_MORE = 8  # flow runs that are listed besides those for which there is room: some that nobody can claim hide no others
_FRESH_SECONDS = 2.0  # for which a look counts: those that it has found, and that still wait, are taken without another one
_MOST_NAMED = 1000  # whose ids are remembered, so that none is taken by its name twice
_log = structlog.get_logger(__name__)


class Executor:
    """A loop that polls until it is stopped. Prefect may be away, or come back, at any time."""

    def __init__(
        self,
        settings: Settings,
        pool: WorkPool,
        start_guardian: StartGuardian,
        peers: Peers | None = None,
        telemetry: Telemetry | None = None,
        logs: LogDelivery | None = None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._start_guardian = start_guardian
        self._peers = peers
        self._telemetry = telemetry
        self._logs = logs
        self._hint = asyncio.Event()  # to look into the work pool now
        self._told: set[str] = set()  # the tenants of whose flow runs run-service tells
        self._found: deque[DueRun] = deque()  # at the last look, and not yet taken
        self._found_time = 0.0
        self._begun: set[UUID] = set()  # under way at the last look, or begun since
        self._may_others_wait = True  # there was no room for all, or no look yet
        self._views = PoolViews(pool)
        self._named: deque[UUID] = deque(maxlen=_MOST_NAMED)  # taken without a look
        self._running: dict[UUID, asyncio.Task[None]] = {}  # those that may be cancelled in Prefect
        self._refused: set[UUID] = set()  # ended in Prefect between their claim and their start
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._is_stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Execute what is due until `stop` is set; then end what is under way."""
        tasks = [
            asyncio.create_task(self._watch_cancellations(), name="cancellations"),
            asyncio.create_task(self._look_when(stop), name="stop"),
            asyncio.create_task(self._views.run(), name="views"),
        ]
        if self._peers is not None:
            tasks += [
                asyncio.create_task(
                    self._watch_dispatches(self._peers, tenant_id), name=f"dispatches-{tenant_id}"
                )
                for tenant_id in self._settings.tenants
            ]
        failures, is_pool_sure = 0, False
        try:
            while not stop.is_set():
                try:
                    async with asyncio.timeout(_CALL_SECONDS):
                        if not is_pool_sure:
                            await self._pool.ensure()
                            is_pool_sure = True
                        await self._poll()
                    failures, delay = 0, self._pause()
                except Exception as error:  # noqa: BLE001 - whatever Prefect does, the worker stays
                    failures += 1
                    delay = backoff(failures, first=2 * self._settings.poll_seconds, longest=_LONGEST_DELAY)
                    _log.warning("Prefect does not answer", error=repr(error), delay=delay)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):  # wait_for may lose a cancellation on Python 3.11
                        await self._hint.wait()
                self._hint.clear()
        finally:
            for task in tasks:
                task.cancel()
            await self._drain()

    def _pause(self) -> float:
        """Return the seconds until the next look without a hint; each look costs Prefect work."""
        is_told = self._told.issuperset(self._settings.tenants)
        return self._settings.poll_seconds * (_CALM if is_told else 1)

    async def _look_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._is_stopping = True
        self._hint.set()

    async def _watch_dispatches(self, peers: Peers, tenant_id: str) -> None:
        """Look into the work pool as soon as run-service says so; without it, the next look comes soon."""
        failures = 0
        while True:
            try:
                async for named in peers.watch_dispatches(tenant_id):
                    failures = 0
                    self._told.add(tenant_id)
                    if named is None or not self._take_named(named, tenant_id):
                        self._hint.set()
            except Exception as error:  # noqa: BLE001 - whatever it is, flow runs are found without it
                _log.info("dispatches not watched", error=repr(error))
            self._told.discard(tenant_id)
            failures += 1
            await asyncio.sleep(backoff(failures, first=_FIRST_HINT_DELAY, longest=_LONGEST_HINT_DELAY))

    def _take_named(self, dispatched: DispatchedRun, tenant_id: str) -> bool:
        """Take a flow run that run-service names, if nothing else waits; return whether no look is needed for it."""
        if self._is_stopping or self._may_others_wait or not self._has_room():
            return False
        named = read_named(dispatched, tenant_id)
        if named is None:
            return False
        if named.flow_run_id in self._begun or named.flow_run_id in self._named:
            return False  # told twice; a look shows what has become of it
        self._views.note_name()
        if not self._views.is_free(named.queue_id):
            _log.debug("flow run looked for", flow_run_id=str(named.flow_run_id))
            return False
        _log.info("flow run taken by its name", flow_run_id=str(named.flow_run_id))
        self._named.append(named.flow_run_id)
        self._begin(
            named.flow_run_id, functools.partial(self._claim_and_run, named.flow_run_id, named.ticket)
        )
        self._may_others_wait = not self._has_room()
        return True

    async def _poll(self) -> None:
        """Fill the room with what the last look has found, if that is recent, or else with what a new look finds."""
        if time.monotonic() - self._found_time > _FRESH_SECONDS:
            self._found.clear()
        if self._found and self._has_room():  # others may have executed them meanwhile
            waiting = await self._pool.list_waiting([flow_run.id for flow_run in self._found])
            self._found = deque(flow_run for flow_run in self._found if flow_run.id in waiting)
        self._fill()
        if self._has_room():
            self._begun = set(self._tasks)
            found = await self._pool.list_due(self._settings.concurrency + _MORE)
            # One that was under way when the answer was made may have ended before it came.
            self._found = deque(flow_run for flow_run in found if flow_run.id not in self._begun)
            self._found_time = time.monotonic()
            self._fill()
        self._may_others_wait = not self._has_room()

    def _fill(self) -> None:
        """Begin to execute those that were found, while there is room."""
        while self._found and self._has_room():
            flow_run = self._found.popleft()
            self._begin(flow_run.id, functools.partial(self._take, flow_run))

    def _begin(self, flow_run_id: UUID, take: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self._execute(flow_run_id, take), name=f"flow-run-{flow_run_id}")
        self._tasks[flow_run_id] = task
        self._begun.add(flow_run_id)
        task.add_done_callback(functools.partial(self._forget, flow_run_id))

    def _has_room(self) -> bool:
        return len(self._tasks) < self._settings.concurrency

    def _forget(self, flow_run_id: UUID, _: asyncio.Task[None]) -> None:
        self._tasks.pop(flow_run_id, None)
        if self._may_others_wait:
            self._hint.set()

    async def _execute(self, flow_run_id: UUID, take: Callable[[], Awaitable[None]]) -> None:
        try:
            await take()
        except Exception as error:  # noqa: BLE001 - whatever it is, the flow run must not stay as it is
            _log.exception("flow run not executed", flow_run_id=str(flow_run_id), error=repr(error))
            text = f"The worker could not execute the flow run: {type(error).__name__}; see the worker's log."
            await self._record(lambda: self._pool.record_crashed(flow_run_id, text))

    async def _take(self, flow_run: DueRun) -> None:
        try:
            ticket = make_ticket(flow_run)
            check_tenant(ticket, self._settings)
        except TicketInvalidError as error:
            text = redact(str(error))
            _log.warning("flow run refused", flow_run_id=str(flow_run.id), reason=text)
            await self._record(lambda: self._pool.record_failed(flow_run.id, text))
            return
        await self._claim_and_run(flow_run.id, ticket)

    async def _claim_and_run(self, flow_run_id: UUID, ticket: Ticket) -> None:
        if await self._claim(flow_run_id):
            await self._run(flow_run_id, ticket)

    async def _run(self, flow_run_id: UUID, ticket: Ticket) -> None:
        """Execute a claimed flow run to its end, and say in Prefect how it ended."""
        _log.info("flow run taken", flow_run_id=str(flow_run_id))
        task = asyncio.current_task()
        assert task is not None
        self._running[flow_run_id] = task
        # The run begins meanwhile: the claim has made it ours.
        showing = asyncio.create_task(self._show(flow_run_id, task), name=f"running-{flow_run_id}")
        try:
            ending = await execute_run(
                ticket, self._settings, self._start_guardian, self._peers, self._telemetry, self._logs
            )
        except asyncio.CancelledError as error:
            showing.cancel()
            await asyncio.wait({showing})
            # Prefect says already how it ends. A call to a service that is cancelled loses the message.
            if error.args == (ABANDONED,) or flow_run_id in self._refused:
                return
            text = "The worker was stopped while it executed the flow run."
            await self._record(lambda: self._pool.record_crashed(flow_run_id, text))
        except DomainError as error:
            await asyncio.wait({showing})
            text = redact(f"{error.reason}: {error.message}")
            _log.warning("flow run not executed", flow_run_id=str(flow_run_id), reason=text)
            await self._record(lambda: self._pool.record_failed(flow_run_id, text))
        else:
            await asyncio.wait({showing})  # or it could come after the end
            await self._record(lambda: self._pool.record_end(flow_run_id, ending))
        finally:
            showing.cancel()
            self._running.pop(flow_run_id, None)
            self._refused.discard(flow_run_id)

    async def _show(self, flow_run_id: UUID, executing: asyncio.Task[None]) -> None:
        """Say in Prefect that a flow run is executed; stop executing one that was ended there since the claim."""
        try:
            await self._record(lambda: self._pool.record_running(flow_run_id))
        except FlowRunRefusedError as error:
            _log.info("flow run not executed", flow_run_id=str(flow_run_id), reason=str(error))
            self._refused.add(flow_run_id)
            executing.cancel(ABANDONED)  # run-service sees in Prefect what became of it, and ends the run

    async def _claim(self, flow_run_id: UUID) -> bool:
        """Return whether it is ours to execute; otherwise it is another's, or has ended, or stays in the pool."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._pool.claim(flow_run_id)
        except FlowRunNotWaitingError as error:
            claim_id = error.state_id
            await self._record(lambda: self._pool.give_back(flow_run_id, claim_id))
            _log.warning("flow run given back", flow_run_id=str(flow_run_id), reason=str(error))
        except FlowRunRefusedError as error:
            _log.info("flow run not claimed", flow_run_id=str(flow_run_id), reason=str(error))
        except Exception as error:  # noqa: BLE001 - it stays in the pool and is seen again
            _log.warning("flow run not claimed", flow_run_id=str(flow_run_id), error=repr(error))
            if flow_run_id in self._named:  # no look has seen it, so the next one comes at once
                self._named.remove(flow_run_id)
                self._may_others_wait = True
        else:
            return True
        return False

    async def _watch_cancellations(self) -> None:
        while True:
            await asyncio.sleep(self._settings.cancellation_poll_seconds)
            if not self._running:
                continue
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    for flow_run_id in await self._pool.list_cancelling(set(self._running)):
                        await self._pool.record_cancelled(flow_run_id)
                        if task := self._running.get(flow_run_id):
                            task.cancel(ABANDONED)  # run-service sees it in Prefect, and cancels the run
            except Exception as error:  # noqa: BLE001 - tried again
                _log.warning("cancellations not seen", error=repr(error))

    async def _record(self, call: Callable[[], Awaitable[None]]) -> None:
        """Tell Prefect, again and again while it is away."""
        for attempt in range(1, _RECORD_ATTEMPTS + 1):
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    await call()
            except FlowRunRefusedError:  # an answer
                raise
            except Exception as error:  # noqa: BLE001 - tried again
                _log.warning("state not recorded", error=repr(error), attempt=attempt)
                await asyncio.sleep(backoff(attempt, first=_FIRST_DELAY, longest=_LONGEST_DELAY))
            else:
                return
        _log.error("state not recorded", attempts=_RECORD_ATTEMPTS)

    async def _drain(self) -> None:
        """Let runs end by themselves; then have them report that they were stopped."""
        await self._wait(self._settings.worker_grace_seconds)
        for task in [*self._tasks.values()]:
            task.cancel()
        await self._wait(_FAREWELL_SECONDS)
        for task in [*self._tasks.values()]:
            task.cancel()
        await self._wait(_RECORD_SECONDS)

    async def _wait(self, seconds: float) -> None:
        if self._tasks:
            await asyncio.wait([*self._tasks.values()], timeout=seconds)
