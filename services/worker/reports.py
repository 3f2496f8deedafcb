"""The reports of an executor to run-service, retried until they arrive; decides nothing about a run."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import structlog

from optaic.rules.limits import longest_text
from optaic.rules.pages import LARGEST_SIZE
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_report_service_pb2_grpc
from redaction import redact
from servicekit.backoff import backoff
from servicekit.errors import DomainError
from servicekit.status import from_rpc_error

_T = TypeVar("_T")
_TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)
# After one of these every further report would be refused as well.
_LOST = frozenset({"FENCED", "RUN_ENDED", "RUN_NOT_FOUND"})
_FIRST_DELAY, _LONGEST_DELAY, _JITTER = 0.1, 5.0, 0.2
_GATHERING = 0.4  # seconds for which news of progress waits for more: a short run reports its end only
_LONGEST_MESSAGE = longest_text(run_report_service_pb2.HeartbeatRequest, "progress_message")
_log = structlog.get_logger(__name__)


class RunLostError(Exception):
    """The run has ended or belongs to another executor; this executor must stop reporting."""

    def __init__(self, refusal: DomainError) -> None:
        super().__init__(f"{refusal.reason}: {refusal.message}")
        self.refusal = refusal


async def persist(call: Callable[[], Awaitable[_T]], patience: float) -> _T:
    """Repeat a call that is safe to repeat while the service is away, for `patience` seconds.

    Raises:
        DomainError: the service refused, or was away for too long.
    """
    limit, failures = time.monotonic() + patience, 0
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            failures += 1
            delay = backoff(failures, first=_FIRST_DELAY, longest=_LONGEST_DELAY, jitter=_JITTER)
            if error.code() not in _TRANSIENT or time.monotonic() + delay > limit:
                raise from_rpc_error(error) from error
            _log.warning("report repeated", code=error.code().name, detail=error.details(), delay=delay)
        await asyncio.sleep(delay)


class Progress:
    """The newest progress of a run, passed from the child's reader to the reporter."""

    def __init__(self) -> None:
        self.news: tuple[float, str] | None = None  # percent and message
        self.changed = asyncio.Event()

    def tell(self, news: run_report_service_pb2.HeartbeatRequest) -> None:
        """Take what the child says; only what a report can carry is passed on."""
        self.news = (
            min(100.0, max(0.0, news.progress_pct)),
            redact(news.progress_message)[:_LONGEST_MESSAGE],
        )
        self.changed.set()


class Reporter:
    """The reports of one started run."""

    def __init__(
        self,
        stub: run_report_service_pb2_grpc.RunReportServiceAsyncStub,
        started: run_report_service_pb2.StartRunResponse,
        patience: float,
    ) -> None:
        self._stub = stub
        self._patience = patience
        self.refusal: DomainError | None = None  # by which a heartbeat learned that the run is lost
        self.is_ending = False  # the end was sent at least once; only its own answer counts from then on
        self._run_id, self._fencing_token = started.run.run_id, started.fencing_token
        self._credential = started.credential  # the newest
        self._lease = max(0.5, started.lease.ToTimedelta().total_seconds())
        # A lost heartbeat must leave time for another one.
        self._interval = min(
            started.heartbeat_interval.ToTimedelta().total_seconds() or self._lease / 3, self._lease / 3
        )

    async def keep_alive(self, progress: Progress) -> None:
        """Send heartbeats, soon after news, until the run is lost: then this returns.

        Each heartbeat costs run-service a transaction, and an event if it has news.
        """
        sent: tuple[float, str] | None = None
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await progress.changed.wait()
                    await asyncio.sleep(_GATHERING)
            except TimeoutError:
                pass
            progress.changed.clear()
            request = run_report_service_pb2.HeartbeatRequest(
                run_id=self._run_id, fencing_token=self._fencing_token, credential=self._credential
            )
            if (news := progress.news) != sent and news is not None:
                request.progress_pct, request.progress_message = news
            try:
                answer = await self._stub.Heartbeat(request, timeout=min(5.0, self._lease / 2))
                self._credential = answer.credential or self._credential
                sent = news
            except grpc.aio.AioRpcError as error:
                refusal = from_rpc_error(error)
                if refusal.reason in _LOST:
                    _log.warning("run lost", run_id=self._run_id, reason=refusal.reason)
                    self.refusal = refusal
                    return
                # While run-service is away no lease runs out.
                _log.warning("heartbeat failed", error=repr(refusal))
                await asyncio.sleep(min(_GATHERING, self._interval))

    async def complete(self, request: run_report_service_pb2.CompleteRunRequest) -> None:
        """Set the run COMPLETED.

        Raises:
            RunLostError: nothing was published.
            DomainError: refused for another reason, or run-service was away for too long.
        """
        self._sign(request)
        await self._end(lambda: self._stub.CompleteRun(request))

    async def fail(self, request: run_report_service_pb2.FailRunRequest) -> None:
        """Set the run FAILED; raises as `complete`."""
        self._sign(request)
        await self._end(lambda: self._stub.FailRun(request))

    def _sign(
        self, request: run_report_service_pb2.CompleteRunRequest | run_report_service_pb2.FailRunRequest
    ) -> None:
        request.run_id, request.fencing_token = self._run_id, self._fencing_token
        request.credential = self._credential

    async def state_code(
        self, request: run_report_service_pb2.StartRunRequest
    ) -> run_report_service_pb2.StartRunResponse:
        """Ask for the run once more, with the code that it will execute; raises as `complete`.

        A refusal is the run's end: while this asks, and after a refusal, only its own answer counts.
        """
        self.is_ending = True
        try:
            answer: run_report_service_pb2.StartRunResponse = await persist(
                lambda: self._stub.StartRun(request), self._patience
            )
        except DomainError as error:
            if error.reason in _LOST:
                raise RunLostError(error) from error
            self.is_ending = False
            raise
        self.is_ending = answer.run.status != run_pb2.RUN_STATUS_RUNNING
        return answer

    async def list_trained_versions(self) -> run_report_service_pb2.ListTrainedVersionsResponse:
        """Return all completed trainings of the run's instance; raises as `complete`.

        While this asks, a refusal is the run's end, as for its other reports.
        """
        found = run_report_service_pb2.ListTrainedVersionsResponse()
        while True:
            request = run_report_service_pb2.ListTrainedVersionsRequest(
                run_id=self._run_id,
                fencing_token=self._fencing_token,
                credential=self._credential,
                page_size=LARGEST_SIZE,
                page_token=found.next_page_token,
            )
            try:
                answer: run_report_service_pb2.ListTrainedVersionsResponse = await persist(
                    functools.partial(self._stub.ListTrainedVersions, request), self._patience
                )
            except DomainError as error:
                if error.reason in _LOST:
                    raise RunLostError(error) from error
                raise
            found.trained_versions.extend(answer.trained_versions)
            found.next_page_token, found.monitored_run_id = answer.next_page_token, answer.monitored_run_id
            if not found.next_page_token:
                return found

    async def _end(self, call: Callable[[], Awaitable[object]]) -> None:
        self.is_ending = True
        try:
            await persist(call, self._patience)
        except DomainError as error:
            if error.reason in _LOST:
                raise RunLostError(error) from error
            raise
