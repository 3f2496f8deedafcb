"""Implement each RPC by one call of a use case; decide nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from optaic.run.v1 import (
    run_pb2,
    run_report_service_pb2,
    run_report_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
)
from run_service.use_cases import adoption, cancellation, code, reading, reports, retries, submission
from run_service.use_cases.dependencies import Dependencies
from servicekit.context import current


class RunServicer(run_service_pb2_grpc.RunServiceServicer):
    """The service RunService, for clients that submit and watch runs."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def SubmitRun(self, request: run_service_pb2.SubmitRunRequest, _context: Any) -> run_pb2.Run:
        """Admit and record a run."""
        return await submission.submit_run(self._deps, current(), request)

    async def GetRun(self, request: run_service_pb2.GetRunRequest, _context: Any) -> run_pb2.Run:
        """Return a run."""
        return await reading.get_run(self._deps, current(), request.run_id)

    async def ListRuns(
        self, request: run_service_pb2.ListRunsRequest, _context: Any
    ) -> run_service_pb2.ListRunsResponse:
        """Return a page of runs."""
        return await reading.list_runs(self._deps, current(), request)

    async def CancelRun(self, request: run_service_pb2.CancelRunRequest, _context: Any) -> run_pb2.Run:
        """End a run."""
        return await cancellation.cancel_run(self._deps, current(), request)

    async def RetryRun(self, request: run_service_pb2.RetryRunRequest, _context: Any) -> run_pb2.Run:
        """Submit an ended run's flow again."""
        return await retries.retry_run(self._deps, current(), request)

    async def WatchRun(
        self, request: run_service_pb2.WatchRunRequest, _context: Any
    ) -> AsyncIterator[run_pb2.Run]:
        """Stream a run's changes until it has ended."""
        async with aclosing(reading.watch_run(self._deps, current(), request.run_id)) as runs:
            async for run in runs:
                yield run

    async def ListActivities(
        self, request: run_service_pb2.ListActivitiesRequest, _context: Any
    ) -> run_service_pb2.ListActivitiesResponse:
        """Return a page of a run's timeline."""
        return await reading.list_activities(self._deps, current(), request)

    async def AcceptCode(
        self, request: run_service_pb2.AcceptCodeRequest, _context: Any
    ) -> run_service_pb2.CodeHash:
        """Put another hash of a definition version's code on record."""
        return await code.accept_code(self._deps, current(), request)

    async def ListCodeHashes(
        self, request: run_service_pb2.ListCodeHashesRequest, _context: Any
    ) -> run_service_pb2.ListCodeHashesResponse:
        """Return a page of the hashes that are and were on record."""
        return await reading.list_code_hashes(self._deps, current(), request)


class RunReportServicer(run_report_service_pb2_grpc.RunReportServiceServicer):
    """The service RunReportService, for workers that execute runs."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def StartRun(
        self, request: run_report_service_pb2.StartRunRequest, _context: Any
    ) -> run_report_service_pb2.StartRunResponse:
        """Give a run to its executor."""
        tenant_id = current().tenant_id
        if request.WhichOneof("target") == "scheduled":
            return await adoption.start_scheduled(self._deps, tenant_id, request)
        return await reports.start_run(self._deps, tenant_id, request.run_id, request)

    async def Heartbeat(
        self, request: run_report_service_pb2.HeartbeatRequest, _context: Any
    ) -> run_report_service_pb2.HeartbeatResponse:
        """Extend the lease of a running run."""
        return await reports.heartbeat(self._deps, current(), request)

    async def CompleteRun(
        self, request: run_report_service_pb2.CompleteRunRequest, _context: Any
    ) -> run_pb2.Run:
        """Record that a run has completed."""
        return await reports.complete_run(self._deps, current(), request)

    async def FailRun(self, request: run_report_service_pb2.FailRunRequest, _context: Any) -> run_pb2.Run:
        """Record that a run has failed."""
        return await reports.fail_run(self._deps, current(), request)
