"""Runs: submitting, waiting, watching, and what came out. Generated from optaic.client.runs by `make client`; do not edit."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from optaic.client import runs as asynchronous
from optaic.client.references import InstanceLike
from optaic.client.synchronous.loop import Plain
from optaic.run.v1 import run_log_pb2, run_pb2
from optaic.run.v1 import run_service_pb2 as api

if TYPE_CHECKING:
    import polars as pl


class RunHandle(Plain[asynchronous.RunHandle]):
    """One run as it was last seen. Every field of `Run` is an attribute, under its own and its other known names."""

    @property
    def run(self) -> run_pb2.Run:
        """The run as it was last seen."""
        return self._target.run

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._target, name)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._target.run_id

    @property
    def is_ended(self) -> bool:
        """Return whether the run, as last seen, has ended."""
        return self._target.is_ended

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the run, as plain values."""
        return self._target.metrics

    metrics_json = metrics

    def refresh(self) -> run_pb2.Run:
        """Read the run again."""
        return self._loop.run(self._target.refresh())

    def watch(self) -> Generator[run_pb2.Run, None, None]:
        """Yield the run as it is, then after each change, until it has ended; survives lost connections."""
        return self._loop.iterate(self._target.watch())

    def wait(self, timeout: float | None = None) -> run_pb2.Run:
        """Wait until the run has ended in any way; return it.

        Raises:
            TimeoutError: It took longer than `timeout` seconds; the run continues.
        """
        return self._loop.run(self._target.wait(timeout))

    def cancel(self, reason: str = "") -> run_pb2.Run:
        """Cancel the run; the worker stops as soon as it learns of it."""
        return self._loop.run(self._target.cancel(reason))

    def artifact(self, name: str) -> pl.DataFrame:
        """Read a large output, for example `equity_curve`.

        Raises:
            KeyError: The run has no such artifact.
            ArtifactCorruptError: The file is not the one that the run wrote.
        """
        return self._loop.run(self._target.artifact(name))

    def logs(
        self, *, min_level: str | int = 0, start: datetime | None = None, end: datetime | None = None
    ) -> Generator[run_log_pb2.LogLine, None, None]:
        """Yield what the run has printed and logged; arguments as of `Runs.logs`."""
        return self._loop.iterate(self._target.logs(min_level=min_level, start=start, end=end))

    def watch_logs(self, *, min_level: str | int = 0) -> Generator[run_log_pb2.LogLine, None, None]:
        """Yield what the run prints and logs as it comes, until the run has ended."""
        return self._loop.iterate(self._target.watch_logs(min_level=min_level))

    def traceback(self) -> str:
        """Return where the run's code was when it failed; empty if it is not known."""
        return self._loop.run(self._target.traceback())


class Runs(Plain[asynchronous.Runs]):
    """The methods for runs: executions of flows."""

    def submit(
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
        return RunHandle(
            self._loop,
            self._loop.run(
                self._target.submit(
                    instance,
                    flow_kind=flow_kind,
                    mode=mode,
                    parameters=parameters,
                    force=force,
                    force_reason=force_reason,
                    allow_deletion=allow_deletion,
                    allow_deletion_reason=allow_deletion_reason,
                    request_id=request_id,
                    validate_only=validate_only,
                    **known_as,
                )
            ),
        )

    def report_external(
        self, instance: InstanceLike, version: str, *, last_data_date: date | str = "", request_id: str = ""
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
        return self._loop.run(
            self._target.report_external(
                instance, version, last_data_date=last_data_date, request_id=request_id
            )
        )

    def get(self, run_id: str) -> run_pb2.Run:
        """Return a run as it is."""
        return self._loop.run(self._target.get(run_id))

    def handle(self, run_id: str) -> RunHandle:
        """Return the handle of a run that was submitted elsewhere."""
        return RunHandle(self._loop, self._loop.run(self._target.handle(run_id)))

    def list(
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
        return self._loop.run(
            self._target.list(
                instance, flow_kind=flow_kind, statuses=statuses, limit=limit, instances=instances
            )
        )

    def cancel(self, run_id: str, reason: str = "") -> run_pb2.Run:
        """Cancel a run."""
        return self._loop.run(self._target.cancel(run_id, reason))

    def retry(self, run_id: str, *, force: bool = False, force_reason: str = "") -> RunHandle:
        """Submit a new run of the same flow, with the same mode and parameters."""
        return RunHandle(
            self._loop, self._loop.run(self._target.retry(run_id, force=force, force_reason=force_reason))
        )

    def watch(self, run_id: str) -> Generator[run_pb2.Run, None, None]:
        """Yield the run as it is, then after each change, until it has ended."""
        return self._loop.iterate(self._target.watch(run_id))

    def logs(
        self,
        run_id: str,
        *,
        min_level: str | int = 0,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Generator[run_log_pb2.LogLine, None, None]:
        """Yield what a run has printed and logged until now, in order of time.

        Args:
            run_id: The run.
            min_level: `warning`, for example: only lines of this level and above.
            start: Only lines from this time on.
            end: Only lines before this time.

        Raises:
            ValueError: A time has no zone.
        """
        return self._loop.iterate(self._target.logs(run_id, min_level=min_level, start=start, end=end))

    def watch_logs(
        self, run_id: str, *, min_level: str | int = 0
    ) -> Generator[run_log_pb2.LogLine, None, None]:
        """Yield what a run prints and logs as it comes, until it has ended; survives lost connections."""
        return self._loop.iterate(self._target.watch_logs(run_id, min_level=min_level))

    def traceback(self, run_id: str) -> str:
        """Return where a run's code was when it failed; empty if it is not known."""
        return self._loop.run(self._target.traceback(run_id))

    def sign_artifact_url(
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
        return self._loop.run(self._target.sign_artifact_url(run_id, name, lifetime=lifetime))

    def activities(self, run_id: str) -> Sequence[run_pb2.Activity]:
        """Return the run's activities, in order of time."""
        return self._loop.run(self._target.activities(run_id))
