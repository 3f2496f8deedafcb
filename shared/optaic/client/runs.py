"""Runs: submitting, waiting, watching, and what came out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from optaic.client import messages
from optaic.client.connection import Connection
from optaic.client.definitions import each_page
from optaic.client.existence import require_instances
from optaic.client.references import InstanceLike, id_of
from optaic.client.selection import Selection
from optaic.client.tables import read_artifact
from optaic.rules.pages import LARGEST_SIZE
from optaic.rules.run_logs import NOTES
from optaic.run.v1 import run_log_pb2, run_pb2
from optaic.run.v1 import run_service_pb2 as api
from optaic.run.v1.run_service_pb2_grpc import RunServiceStub

if TYPE_CHECKING:
    import polars as pl

_MOST_INSTANCES = 1000  # of one listing
_INCOMPLETE = "[optaic: the worker has not delivered all lines of the run; read its log again later]"
_ENDED = frozenset({run_pb2.RUN_STATUS_COMPLETED, run_pb2.RUN_STATUS_FAILED, run_pb2.RUN_STATUS_CANCELLED})


def _run_id(run: run_pb2.Run) -> str:
    return run.run_id


class RunHandle:
    """One run as it was last seen. Every field of `Run` is an attribute, under its own and its other known names."""

    def __init__(self, runs: Runs, run: run_pb2.Run) -> None:
        self._runs = runs
        self.run = run

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "run":
            raise AttributeError(name)
        return getattr(self.run, messages.our_name(name))

    def __repr__(self) -> str:
        return f"RunHandle({self.run.run_id!r}, {run_pb2.RunStatus.Name(self.run.status)})"

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.run.run_id

    @property
    def is_ended(self) -> bool:
        """Return whether the run, as last seen, has ended."""
        return self.run.status in _ENDED

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the run, as plain values."""
        return json_format.MessageToDict(self.run.metrics)

    metrics_json = metrics

    async def refresh(self) -> run_pb2.Run:
        """Read the run again."""
        self.run = await self._runs.get(self.run_id)
        return self.run

    async def watch(self) -> AsyncGenerator[run_pb2.Run]:
        """Yield the run as it is, then after each change, until it has ended; survives lost connections."""
        async with aclosing(self._runs.watch(self.run_id)) as changes:
            async for run in changes:
                self.run = run
                yield run

    async def wait(self, timeout: float | None = None) -> run_pb2.Run:  # noqa: ASYNC109 - the public interface
        """Wait until the run has ended in any way; return it.

        Raises:
            TimeoutError: It took longer than `timeout` seconds; the run continues.
        """
        if not self.is_ended:
            async with asyncio.timeout(timeout):
                async for _ in self.watch():
                    pass
        return self.run

    async def cancel(self, reason: str = "") -> run_pb2.Run:
        """Cancel the run; the worker stops as soon as it learns of it."""
        self.run = await self._runs.cancel(self.run_id, reason)
        return self.run

    async def artifact(self, name: str) -> pl.DataFrame:
        """Read a large output, for example `equity_curve`.

        Raises:
            KeyError: The run has no such artifact.
            ArtifactCorruptError: The file is not the one that the run wrote.
        """
        if name not in self.run.artifacts:
            await self.refresh()
        if name not in self.run.artifacts:
            raise KeyError(
                f"run {self.run_id} has no artifact {name!r}; its artifacts are {sorted(self.run.artifacts)}"
            )
        if not self.run.artifact_manifest:  # lists have none
            await self.refresh()
        return await read_artifact(
            f"run {self.run_id}, {name}",
            self.run,
            name,
            Selection(),
            self._runs.find_object_store,
            self._runs.fetch_artifact,
        )

    def logs(
        self, *, min_level: str | int = 0, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncGenerator[run_log_pb2.LogLine]:
        """Yield what the run has printed and logged; arguments as of `Runs.logs`."""
        return self._runs.logs(self.run_id, min_level=min_level, start=start, end=end)

    def watch_logs(self, *, min_level: str | int = 0) -> AsyncGenerator[run_log_pb2.LogLine]:
        """Yield what the run prints and logs as it comes, until the run has ended."""
        return self._runs.watch_logs(self.run_id, min_level=min_level)

    async def traceback(self) -> str:
        """Return where the run's code was when it failed; empty if it is not known."""
        return await self._runs.traceback(self.run_id)


class Runs:
    """The methods for runs: executions of flows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

        self.find_object_store = connection.find_object_store
        self.fetch_artifact = connection.fetch_artifact

    async def _call(self, method: str, request: Any) -> Any:
        return await self._connection.call("run", RunServiceStub, method, request)

    async def submit(
        self,
        instance: InstanceLike | None = None,
        *,
        flow_kind: str | int = 0,
        mode: str | int = 0,
        parameters: Mapping[str, Any] | None = None,
        force: bool = False,
        force_reason: str = "",
        allow_deletion: bool = False,
        allow_deletion_reason: str = "",
        request_id: str = "",
        validate_only: bool = False,
        **known_as: str,
    ) -> RunHandle:
        """Admit a run of an instance's flow.

        Args:
            instance: The instance or its id; `parent_id=` and `parent_instance_id=` are accepted too.
            flow_kind: `refresh`, `training` or `train`, ...; left out: the default flow.
            mode: `incremental` (the default) or `full`.
            parameters: Of a refresh: `start`, `end`, `data_date`. With `start` or `end`, what lies outside stays. Of models,
                optimizers and monitorings: `data_date`; nothing later is read.
            force: Run although upstreams are not READY; `force_reason` must say why.
            force_reason: Recorded with the run.
            allow_deletion: Let it remove more than the dataset's `max_deleted_share` allows;
                `allow_deletion_reason` must say why.
            allow_deletion_reason: Recorded with the run.
            request_id: Repeats with the same id get the first answer.
            validate_only: Check everything, record nothing.
            known_as: The instance's id under a known outside name.

        Raises:
            UpstreamNotReadyError: `blocking` names each flow that is not READY.
            OptaicError: Any other refusal.
        """
        request = api.SubmitRunRequest(
            force=force,
            force_reason=force_reason,
            allow_deletion=allow_deletion,
            allow_deletion_reason=allow_deletion_reason,
            request_id=request_id,
            validate_only=validate_only,
        )
        if instance is not None:
            request.instance_id = id_of(instance)
        messages.fill(request, {"flow_kind": flow_kind, "mode": mode, "parameters": parameters, **known_as})
        return RunHandle(self, await self._call("SubmitRun", request))

    async def report_external(
        self,
        instance: InstanceLike,
        version: str,
        *,
        last_data_date: date | str = "",
        request_id: str = "",
    ) -> run_pb2.Run:
        """Report a new version of the data that another system writes and the instance's store reads in place.

        Args:
            instance: An external dataset, or its id.
            version: What the other system calls the version. That of the current version changes nothing.
            last_data_date: The newest date in the data; required if the instance has a freshness policy, unless it is irregular.
            request_id: Repeats with the same id get the first answer.

        Raises:
            OptaicError: The instance is not external, or any other refusal.
        """
        request = api.ReportExternalVersionRequest(
            instance_id=id_of(instance),
            external_version=version,
            last_data_date=str(last_data_date),
            request_id=request_id,
        )
        run: run_pb2.Run = await self._call("ReportExternalVersion", request)
        return run

    async def get(self, run_id: str) -> run_pb2.Run:
        """Return a run as it is."""
        run: run_pb2.Run = await self._call("GetRun", api.GetRunRequest(run_id=run_id))
        return run

    async def handle(self, run_id: str) -> RunHandle:
        """Return the handle of a run that was submitted elsewhere."""
        return RunHandle(self, await self.get(run_id))

    async def list(
        self,
        instance: InstanceLike | None = None,
        *,
        flow_kind: str | int = 0,
        statuses: Sequence[str | int] = (),
        limit: int | None = None,
        instances: Sequence[InstanceLike] = (),
    ) -> list[run_pb2.Run]:
        """Return runs, newest first; at most `limit`, and only of an instance, or of several.

        Raises:
            NotFoundError: There is no such instance, and no run of it is left.
        """
        if instance is not None:
            instances = [instance, *instances]
        request = api.ListRunsRequest(page_size=min(limit or LARGEST_SIZE, LARGEST_SIZE))
        messages.fill(request, {"flow_kind": flow_kind, "statuses": statuses})
        ids = list(dict.fromkeys(id_of(each) for each in instances))
        found: list[run_pb2.Run] = []
        for begin in range(0, len(ids) or 1, _MOST_INSTANCES):
            request.page_token = ""
            del request.instance_ids[:]
            if len(ids) == 1:
                request.instance_id = ids[0]
            else:
                request.instance_ids.extend(ids[begin : begin + _MOST_INSTANCES])
            found += await self._list(request, limit)
        if not found:
            await require_instances(self._connection, instances)
        # Ids of runs ascend in time, so this is the order of the services.
        return found if len(ids) <= _MOST_INSTANCES else sorted(found, key=_run_id, reverse=True)[:limit]

    async def _list(self, request: Any, limit: int | None) -> Sequence[run_pb2.Run]:
        async def page(request: Any) -> Any:
            return await self._call("ListRuns", request)

        found: list[run_pb2.Run] = []
        async with aclosing(each_page(page, request, "runs")) as pages:
            async for run in pages:
                found.append(run)
                if limit and len(found) >= limit:
                    break
        return found

    async def cancel(self, run_id: str, reason: str = "") -> run_pb2.Run:
        """Cancel a run."""
        request = api.CancelRunRequest(run_id=run_id, reason=reason)
        run: run_pb2.Run = await self._call("CancelRun", request)
        return run

    async def retry(self, run_id: str, *, force: bool = False, force_reason: str = "") -> RunHandle:
        """Submit a new run of the same flow, with the same mode and parameters."""
        request = api.RetryRunRequest(run_id=run_id, force=force, force_reason=force_reason)
        return RunHandle(self, await self._call("RetryRun", request))

    async def watch(self, run_id: str) -> AsyncGenerator[run_pb2.Run]:
        """Yield the run as it is, then after each change, until it has ended."""
        changes = self._connection.stream(
            "run", RunServiceStub, "WatchRun", lambda: api.WatchRunRequest(run_id=run_id)
        )
        last = None
        async with aclosing(changes):
            # To the stream's own end, a moment after the run's: it carries the token by which later reads hold it.
            async for run in changes:
                if run != last:  # else a bookmark: nothing has changed
                    yield run
                last = run

    async def logs(
        self,
        run_id: str,
        *,
        min_level: str | int = 0,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> AsyncGenerator[run_log_pb2.LogLine]:
        """Yield what a run has printed and logged until now, in order of time.

        Args:
            run_id: The run.
            min_level: `warning`, for example: only lines of this level and above.
            start: Only lines from this time on.
            end: Only lines before this time.

        Raises:
            ValueError: A time has no zone.
        """
        request = api.ListRunLogsRequest(run_id=run_id, page_size=LARGEST_SIZE)
        messages.fill(request, {"min_level": min_level})
        for field, moment in (("start_time", start), ("end_time", end)):
            if moment is not None:
                if moment.tzinfo is None:
                    raise ValueError(f"{moment} has no time zone; give one, for example datetime.UTC")
                getattr(request, field).FromDatetime(moment)

        async def page(request: Any) -> Any:
            return await self._call("ListRunLogs", request)

        async with aclosing(each_page(page, request, "lines")) as lines:
            async for line in lines:
                yield line

    async def watch_logs(
        self, run_id: str, *, min_level: str | int = 0
    ) -> AsyncGenerator[run_log_pb2.LogLine]:
        """Yield what a run prints and logs as it comes, until it has ended; survives lost connections."""
        request = api.WatchRunLogsRequest(run_id=run_id)
        messages.fill(request, {"min_level": min_level})
        answers = self._connection.stream("run", RunServiceStub, "WatchRunLogs", lambda: request)
        async with aclosing(answers) as batches:
            async for batch in batches:
                request.position = batch.position
                for line in batch.lines:
                    yield line
                if batch.is_incomplete:
                    yield run_log_pb2.LogLine(
                        level=run_log_pb2.LOG_LEVEL_WARNING, logger=NOTES, message=_INCOMPLETE
                    )

    async def traceback(self, run_id: str) -> str:
        """Return where a run's code was when it failed; empty if it is not known."""
        answer = await self._call("GetRunTraceback", api.GetRunTracebackRequest(run_id=run_id))
        return str(answer.traceback)

    async def sign_artifact_url(
        self, run_id: str, name: str, *, lifetime: timedelta | None = None
    ) -> api.SignArtifactUrlResponse:
        """Return a URL with which its holder may read one file of a run, and the size and SHA-256 that the file has.

        Args:
            run_id: The run.
            name: A name in the run's `artifact_manifest`.
            lifetime: How long the URL is good, 15 minutes at most; left out: 5 minutes.

        Raises:
            NotFoundError: RUN_NOT_FOUND, ARTIFACT_NOT_FOUND.
            FailedPreconditionError: ARTIFACT_NOT_SIGNABLE, the file lies in no object store.
        """
        request = api.SignArtifactUrlRequest(run_id=run_id, name=name)
        if lifetime is not None:
            request.lifetime.FromTimedelta(lifetime)
        signed: api.SignArtifactUrlResponse = await self._call("SignArtifactUrl", request)
        return signed

    async def activities(self, run_id: str) -> Sequence[run_pb2.Activity]:
        """Return the run's activities, in order of time."""
        request = api.ListActivitiesRequest(run_id=run_id, page_size=LARGEST_SIZE)

        async def page(request: Any) -> Any:
            return await self._call("ListActivities", request)

        return [activity async for activity in each_page(page, request, "activities")]
