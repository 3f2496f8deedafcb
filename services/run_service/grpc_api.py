"""The RPCs of run-service: each calls one use case."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from optaic.run.v1 import data_move_service_pb2 as move_api
from optaic.run.v1 import run_report_service_pb2 as report_api
from optaic.run.v1 import run_service_pb2 as run_api
from optaic.run.v1.data_move_service_pb2_grpc import DataMoveServiceServicer
from optaic.run.v1.refresh_pb2 import Refresh
from optaic.run.v1.run_pb2 import Run
from optaic.run.v1.run_report_service_pb2_grpc import RunReportServiceServicer
from optaic.run.v1.run_service_pb2_grpc import RunServiceServicer
from run_service.use_cases import (
    adoption,
    artifacts,
    batch_submission,
    cancellation,
    code,
    data_moves,
    external_versions,
    log_reading,
    output_reading,
    reading,
    refresh_planning,
    refresh_reading,
    refreshes,
    reports,
    retries,
    submission,
    telemetry,
    training_reading,
)
from run_service.use_cases.dependencies import Dependencies
from servicekit.context import current


class RunServicer(RunServiceServicer):
    """The service optaic.run.v1.RunService."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def SubmitRun(self, request: run_api.SubmitRunRequest, _context: Any) -> Run:
        return await submission.submit_run(self._deps, current(), request)

    async def BatchSubmitRuns(
        self, request: run_api.BatchSubmitRunsRequest, _context: Any
    ) -> run_api.BatchSubmitRunsResponse:
        return await batch_submission.batch_submit_runs(self._deps, current(), request)

    async def ReportExternalVersion(
        self, request: run_api.ReportExternalVersionRequest, _context: Any
    ) -> Run:
        return await external_versions.report_external_version(self._deps, current(), request)

    async def GetRun(self, request: run_api.GetRunRequest, _context: Any) -> Run:
        return await reading.get_run(self._deps, current(), request)

    async def ListRuns(self, request: run_api.ListRunsRequest, _context: Any) -> run_api.ListRunsResponse:
        return await reading.list_runs(self._deps, current(), request)

    async def CancelRun(self, request: run_api.CancelRunRequest, _context: Any) -> Run:
        return await cancellation.cancel_run(self._deps, current(), request)

    async def RetryRun(self, request: run_api.RetryRunRequest, _context: Any) -> Run:
        return await retries.retry_run(self._deps, current(), request)

    async def WatchRun(self, request: run_api.WatchRunRequest, _context: Any) -> AsyncIterator[Run]:
        async with aclosing(reading.watch_run(self._deps, current(), request)) as runs:
            async for run in runs:
                yield run

    async def ListActivities(
        self, request: run_api.ListActivitiesRequest, _context: Any
    ) -> run_api.ListActivitiesResponse:
        return await reading.list_activities(self._deps, current(), request)

    async def AcceptCode(self, request: run_api.AcceptCodeRequest, _context: Any) -> run_api.CodeHash:
        return await code.accept_code(self._deps, current(), request)

    async def ListCodeHashes(
        self, request: run_api.ListCodeHashesRequest, _context: Any
    ) -> run_api.ListCodeHashesResponse:
        return await reading.list_code_hashes(self._deps, current(), request)

    async def ListRunLogs(
        self, request: run_api.ListRunLogsRequest, _context: Any
    ) -> run_api.ListRunLogsResponse:
        return await log_reading.list_run_logs(self._deps, current(), request)

    async def WatchRunLogs(
        self, request: run_api.WatchRunLogsRequest, _context: Any
    ) -> AsyncIterator[run_api.WatchRunLogsResponse]:
        async with aclosing(log_reading.watch_run_logs(self._deps, current(), request)) as batches:
            async for batch in batches:
                yield batch

    async def GetRunTraceback(
        self, request: run_api.GetRunTracebackRequest, _context: Any
    ) -> run_api.GetRunTracebackResponse:
        return await log_reading.get_run_traceback(self._deps, current(), request)

    async def SignArtifactUrl(
        self, request: run_api.SignArtifactUrlRequest, _context: Any
    ) -> run_api.SignArtifactUrlResponse:
        return await artifacts.sign_artifact_url(self._deps, current(), request)

    async def ListRunOutputs(
        self, request: run_api.ListRunOutputsRequest, _context: Any
    ) -> run_api.ListRunOutputsResponse:
        return await output_reading.list_run_outputs(self._deps, current(), request)

    async def PlanRefresh(
        self, request: run_api.PlanRefreshRequest, _context: Any
    ) -> run_api.PlanRefreshResponse:
        return await refresh_planning.plan_refresh(self._deps, current(), request)

    async def SubmitRefresh(self, request: run_api.SubmitRefreshRequest, _context: Any) -> Refresh:
        return await refreshes.submit_refresh(self._deps, current(), request)

    async def GetRefresh(self, request: run_api.GetRefreshRequest, _context: Any) -> Refresh:
        return await refresh_reading.get_refresh(self._deps, current(), request)

    async def ListRefreshes(
        self, request: run_api.ListRefreshesRequest, _context: Any
    ) -> run_api.ListRefreshesResponse:
        return await refresh_reading.list_refreshes(self._deps, current(), request)

    async def ListRefreshFlows(
        self, request: run_api.ListRefreshFlowsRequest, _context: Any
    ) -> run_api.ListRefreshFlowsResponse:
        return await refresh_reading.list_refresh_flows(self._deps, current(), request)

    async def WatchRefresh(
        self, request: run_api.WatchRefreshRequest, _context: Any
    ) -> AsyncIterator[run_api.WatchRefreshResponse]:
        async with aclosing(refresh_reading.watch_refresh(self._deps, current(), request)) as changes:
            async for change in changes:
                yield change

    async def CancelRefresh(self, request: run_api.CancelRefreshRequest, _context: Any) -> Refresh:
        return await refreshes.cancel_refresh(self._deps, current(), request)

    async def ResumeRefresh(self, request: run_api.ResumeRefreshRequest, _context: Any) -> Refresh:
        return await refreshes.resume_refresh(self._deps, current(), request)


class RunReportServicer(RunReportServiceServicer):
    """The service optaic.run.v1.RunReportService."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def StartRun(
        self, request: report_api.StartRunRequest, _context: Any
    ) -> report_api.StartRunResponse:
        return await adoption.start_run(self._deps, current().tenant_id, request)

    async def Heartbeat(
        self, request: report_api.HeartbeatRequest, _context: Any
    ) -> report_api.HeartbeatResponse:
        return await reports.heartbeat(self._deps, current(), request)

    async def CompleteRun(self, request: report_api.CompleteRunRequest, _context: Any) -> Run:
        return await reports.complete_run(self._deps, current(), request)

    async def FailRun(self, request: report_api.FailRunRequest, _context: Any) -> Run:
        return await reports.fail_run(self._deps, current(), request)

    async def WatchDispatches(
        self, _request: report_api.WatchDispatchesRequest, _context: Any
    ) -> AsyncIterator[report_api.WatchDispatchesResponse]:
        async with aclosing(reading.watch_dispatches(self._deps, current())) as hints:
            async for hint in hints:
                yield hint

    async def ReportTelemetry(self, request: report_api.ReportTelemetryRequest, _context: Any) -> Run:
        return await telemetry.report_telemetry(self._deps, current(), request)

    async def ListTrainedVersions(
        self, request: report_api.ListTrainedVersionsRequest, _context: Any
    ) -> report_api.ListTrainedVersionsResponse:
        return await training_reading.list_trained_versions(self._deps, current(), request)


class DataMoveServicer(DataMoveServiceServicer):
    """The service optaic.run.v1.DataMoveService."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def GetDataMove(self, request: move_api.GetDataMoveRequest, _context: Any) -> move_api.DataMove:
        del request  # it has no field
        return await reading.get_data_move(self._deps, current())

    async def BeginDataMove(self, request: move_api.BeginDataMoveRequest, _context: Any) -> move_api.DataMove:
        return await data_moves.begin_data_move(self._deps, current(), request)

    async def SwitchDataMove(
        self, request: move_api.SwitchDataMoveRequest, _context: Any
    ) -> move_api.DataMove:
        return await data_moves.switch_data_move(self._deps, current(), request)

    async def EndDataMove(self, request: move_api.EndDataMoveRequest, _context: Any) -> move_api.DataMove:
        return await data_moves.end_data_move(self._deps, current(), request)
