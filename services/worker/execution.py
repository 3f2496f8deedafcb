"""Execute one run: start it, have a child compute it, keep its lease, report its end; runs no user code."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import structlog
from google.protobuf import json_format

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.rules.counterparts import counterpart_name
from optaic.rules.limits import longest_text
from optaic.rules.run_logs import last_within
from optaic.run.v1 import run_pb2, run_report_service_pb2
from redaction import redact_value
from servicekit import context
from servicekit.errors import DomainError, FailedPreconditionError, NotFoundError, UnimplementedError
from servicekit.ids import new_id
from servicekit.shortening import shorten_within
from worker.child import Task
from worker.code_statement import hash_code, state_code
from worker.config import Settings
from worker.confining import confine
from worker.failures import Failure, describe_error, describe_timeout
from worker.guardian import NOTHING_PRINTED, Report
from worker.increments import check_code
from worker.input_places import check_places, check_trainings
from worker.isolation import Isolation, Result, StartGuardian, start_guardian
from worker.locations import FlowLocation
from worker.log_delivery import LogDelivery
from worker.manifest import describe_text, list_artifacts
from worker.peers import Peers, connect_peers
from worker.preparation import Preparation
from worker.recipe import InferenceRecipe, PipelineRecipe, Recipe, list_plugins
from worker.recipe_reading import list_version_ids, make_recipe
from worker.reports import Progress, Reporter, RunLostError, persist
from worker.run_access import find_access
from worker.run_output import OutputLimits
from worker.storage_access import reach
from worker.telemetry import Telemetry, has_version, list_debts, make_telemetry
from worker.ticket import Ticket
from worker.trainings import Trainings, find_monitored, find_trainings

ABANDONED = "abandoned"  # the message of a cancellation after which the run is not reported as failed
_FAREWELL_SECONDS = 3.0
_TRACEBACK = "traceback"  # the name of the artifact
_LONGEST_TRACEBACK = longest_text(run_report_service_pb2.FailRunRequest, "traceback")
_log = structlog.get_logger(__name__)


class Outcome(Enum):
    """The end of an execution."""

    COMPLETED = auto()
    FAILED = auto()
    CANCELLED = auto()  # refused, cancelled, or taken over by another executor; nothing was published


@dataclass(frozen=True)
class Ending:
    """The outcome and the reason, as text for readers."""

    outcome: Outcome
    message: str


async def execute_run(
    ticket: Ticket,
    settings: Settings,
    start: StartGuardian = start_guardian,
    peers: Peers | None = None,
    telemetry: Telemetry | None = None,
    logs: LogDelivery | None = None,
) -> Ending:
    """Execute a run to its end; nothing that it started is left then.

    Without `peers` it connects for itself; without `telemetry` it delivers what earlier runs owe, too.

    Without `logs` nobody keeps the run's log.

    Raises:
        DomainError: run-service refused what should not be refused, or was away for too long.
        asyncio.CancelledError: the process is to end; the run was reported as failed.
    """
    request = context.RequestContext(ticket.tenant_id, "worker", new_id(), context.new_traceparent())
    async with contextlib.AsyncExitStack() as resources:
        if peers is None:
            peers = await resources.enter_async_context(connect_peers(settings))
        own = telemetry or make_telemetry(settings)
        with context.bind(request):
            async with Preparation(ticket.instance_id, peers, start) as prepared:
                ending = await _Execution(ticket, settings, peers, prepared, own, logs).run()
            if telemetry is None:
                await own.leave(peers)
            return ending


class _Execution:
    def __init__(
        self,
        ticket: Ticket,
        settings: Settings,
        peers: Peers,
        prepared: Preparation,
        telemetry: Telemetry,
        logs: LogDelivery | None,
    ) -> None:
        self._ticket = ticket
        self._settings = settings
        self._peers = peers
        self._prepared = prepared
        self._telemetry = telemetry
        self._fencing_token = ""
        self._logs = logs
        self._report = NOTHING_PRINTED
        self._timeout = settings.run_timeout_seconds  # unless the instance has its own; 0: none
        self._location = FlowLocation(
            settings.data_root, ticket.tenant_id, ticket.instance_id, ticket.flow_kind
        )

    async def run(self) -> Ending:
        try:
            started = await self._start()
        except (FailedPreconditionError, NotFoundError, UnimplementedError) as error:
            return Ending(_outcome_after(error), f"{error.reason}: {error.message}")
        run = started.run
        if run.status != run_pb2.RUN_STATUS_RUNNING:
            is_failed = run.status == run_pb2.RUN_STATUS_FAILED  # for the code that it would have run
            outcome = Outcome.FAILED if is_failed else Outcome.CANCELLED
            return Ending(outcome, f"{run.error.type}: {run.error.message}")
        self._fencing_token = started.fencing_token
        _log.info("run started", run_id=run.run_id, instance_id=run.instance_id, number=run.run_number)
        reporter = Reporter(self._peers.runs, started, self._settings.report_patience_seconds)
        progress = Progress()
        keeping = asyncio.create_task(reporter.keep_alive(progress), name="heartbeats")
        working = asyncio.create_task(self._work(run, reporter, progress), name=f"run-{run.run_id}")
        try:
            await asyncio.wait({keeping, working}, return_when=asyncio.FIRST_COMPLETED)
            if not (working.done() or reporter.is_ending):
                working.cancel()  # which kills what computes
                with contextlib.suppress(asyncio.CancelledError):
                    await working
                if (fault := keeping.exception()) is not None:  # a fault of ours: the run must say so
                    return await self._fail(run, reporter, describe_error(fault))
                return Ending(
                    _outcome_after(reporter.refusal),
                    "the run ended, or run-service gave it up, while this worker executed it",
                )
            return await working
        except asyncio.CancelledError as error:
            working.cancel()
            if error.args == (ABANDONED,):  # whoever cancels says what becomes of the run
                await asyncio.wait({working})
            else:
                await asyncio.shield(self._say_farewell(reporter))
            raise
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _start(self) -> run_report_service_pb2.StartRunResponse:
        request = self._ticket.make_request()
        return await persist(
            lambda: self._peers.runs.StartRun(request), self._settings.start_patience_seconds
        )

    async def _work(self, run: run_pb2.Run, reporter: Reporter, progress: Progress) -> Ending:
        try:
            recipe = await self._read_recipe(run, reporter)
            code = await asyncio.to_thread(state_code, list_plugins(recipe), self._settings.code_check)
            code_hash = hash_code(code)
            if isinstance(recipe, PipelineRecipe):
                recipe = check_code(recipe, run.base_version.code_hash, code_hash)
            reporting = asyncio.create_task(self._report_code(run, code, reporter), name="code")
            answer = await self._compute_beside(reporting, recipe, run, progress)
            if isinstance(answer, Ending):
                return answer
            if isinstance(answer, Failure):
                return await self._fail(run, reporter, answer)
            _tell_log(answer, self._report)
            answer.output_version.code_hash = code_hash
            outputs_uri = self._location.outputs_uri(run.run_id)
            manifest = await reach(self._settings, list_artifacts, dict(answer.artifacts), outputs_uri)
            answer.ClearField("artifact_manifest")  # it is not for user code to say
            answer.artifact_manifest.extend(manifest)
            if isinstance(recipe, InferenceRecipe):  # not for user code to say
                answer.model_artifact_version = recipe.artifact_version
            debts = list_debts(
                self._ticket.tenant_id,
                run,
                self._fencing_token,
                recipe,
                answer,
                outputs_uri,
            )
            await self._telemetry.owe(debts, answer)
            await reporter.complete(answer)
            await self._telemetry.finish(debts, answer.telemetry_pending)
        except RunLostError as error:
            return Ending(_outcome_after(error.refusal), str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must end and say so
            return await self._fail(run, reporter, await asyncio.to_thread(describe_error, error))
        _log.info("run completed", run_id=run.run_id)
        version = answer.output_version
        return Ending(Outcome.COMPLETED, f"{version.physical_version} at {version.uri}")

    async def _compute_beside(
        self, reporting: asyncio.Task[Ending | None], recipe: Recipe, run: run_pb2.Run, progress: Progress
    ) -> Result | Failure | Ending:
        """Have a child compute while the code is reported; whatever fails before, a refusal of the code comes first."""
        try:
            return await self._compute(reporting, recipe, run, progress)
        except Exception:
            if (refused := await reporting) is not None:
                return refused
            raise
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)

    async def _compute(
        self, reporting: asyncio.Task[Ending | None], recipe: Recipe, run: run_pb2.Run, progress: Progress
    ) -> Result | Failure | Ending:
        """Have a child compute, unless its code is refused; when this returns, no process of the run is left."""
        settings = self._settings
        # In a thread: secrets may lie in files.
        sources = await asyncio.to_thread(find_access, recipe, self._ticket.tenant_id, settings)
        stored = await asyncio.to_thread(lambda: settings.storage)
        limits = OutputLimits(
            f"{settings.run_output_folder}/{run.run_id}.log",
            settings.run_output_bytes,
            settings.run_output_runs,
            (*sources.values, *stored.secrets),
            log_bytes=settings.run_log_bytes,
        )
        task = Task(recipe, self._location, run.run_id, settings.log_level, sources, stored)
        confinement = await confine(task, self._ticket.tenant_id, settings)
        async with self._keep_log(run) as log:
            limits = replace(limits, log=log)
            isolation = Isolation(self._prepared.take_guardian, limits, confinement, settings.bounds)
            try:
                async with isolation:
                    # The child is born and confined meanwhile. It executes no code of the run before it gets its
                    # task; the run's secrets are in its memory already.
                    if (refused := await reporting) is not None:
                        return refused
                    try:
                        async with asyncio.timeout(self._timeout or None):
                            answer = await isolation.compute(task, progress.tell)
                    except TimeoutError:
                        answer = describe_timeout(self._timeout)
            finally:
                self._report = isolation.report
        report = self._report
        counts = {
            "output_bytes_dropped": report.dropped_bytes,
            "log_lines_lost": report.lost_lines,
            "processes_left": report.left_processes,
        }
        if found := {name: count for name, count in counts.items() if count}:
            _log.warning(
                "cut short", run_id=run.run_id, output=limits.file, reason=report.output_fault, **found
            )
            if not isinstance(answer, Failure):
                answer.metrics.update(found)
        if not isinstance(answer, Failure):
            # In a thread: of megabytes it takes seconds, and the lease is kept meanwhile.
            await asyncio.to_thread(_hide_secrets, answer)
        return answer

    def _keep_log(self, run: run_pb2.Run) -> contextlib.AbstractAsyncContextManager[str]:
        """Return the file for the lines that the run prints; empty if nobody keeps its log."""
        if self._logs is None:
            return contextlib.nullcontext("")
        return self._logs.keep(run.run_id, self._ticket.orchestrator_run_id)

    async def _report_code(
        self, run: run_pb2.Run, code: Sequence[run_pb2.PluginCode], reporter: Reporter
    ) -> Ending | None:
        """Say which code the run will execute, before it does; return an ending where that is refused."""
        request = run_report_service_pb2.StartRunRequest(
            run_id=run.run_id,
            orchestrator_run_id=self._ticket.orchestrator_run_id,
            executor=self._ticket.executor,
            start_secret=self._ticket.start_secret,
            code=code,
        )
        answered = (await reporter.state_code(request)).run
        if answered.status == run_pb2.RUN_STATUS_RUNNING:
            return None
        _log.warning("code refused", run_id=run.run_id, error=answered.error.message)
        return Ending(Outcome.FAILED, f"{answered.error.type}: {answered.error.message}")

    async def _read_recipe(self, run: run_pb2.Run, reporter: Reporter) -> Recipe:
        """Return the instance at the run's revision, its upstreams at theirs, and the code that all of them are pinned to."""
        instance = await self._prepared.get_instance(run.instance_id, run.instance_revision)
        if instance.schedule.HasField("timeout"):
            self._timeout = instance.schedule.timeout.ToTimedelta().total_seconds()
        base_instance = None
        if run.base_version.instance_revision not in {0, run.instance_revision}:
            base_instance = await self._peers.get_instance(
                run.instance_id, run.base_version.instance_revision
            )
        upstreams = await self._peers.get_instances(
            {each.instance_id: each.instance_revision for each in run.input_versions}
        )
        check_places(self._ticket.tenant_id, run, upstreams)
        instances = [instance, *upstreams, *([base_instance] if base_instance is not None else [])]
        trainings = None
        if _reads_trainings(run, instance):
            trainings = await self._find_trainings(run, instance, reporter)
            instances += trainings.instances.values()
        versions = await self._peers.get_versions(list_version_ids(instances))
        return await asyncio.to_thread(
            make_recipe, run, instance, upstreams, versions, base_instance, trainings
        )

    async def _find_trainings(
        self, run: run_pb2.Run, instance: instance_pb2.Instance, reporter: Reporter
    ) -> Trainings:
        listed = await reporter.list_trained_versions()
        versions = listed.trained_versions
        if run.flow_kind == flow_pb2.FLOW_KIND_MONITORING:
            found = await find_monitored(instance, versions, listed.monitored_run_id, self._peers)
        else:
            found = await find_trainings(run, instance, versions, self._peers, self._has_version)
        check_trainings(self._ticket.tenant_id, run.instance_id, found.chosen)
        return found

    async def _has_version(self, version: str) -> bool | None:
        name = counterpart_name(self._ticket.tenant_id, self._ticket.instance_id)
        return await has_version(self._settings, name, version)

    async def _fail(self, run: run_pb2.Run, reporter: Reporter, failure: Failure) -> Ending:
        _log.warning("run failed", run_id=run.run_id, type=failure.type, error=failure.message)
        request = run_report_service_pb2.FailRunRequest(
            error=run_pb2.RunError(
                type=failure.type or "Error",
                message=failure.message,
                last_lines=last_within(self._report.tail.splitlines()),
            ),
            traceback=shorten_within(failure.trace, _LONGEST_TRACEBACK),
        )
        _tell_log(request, self._report)
        if failure.trace:
            try:
                trace_uri = await reach(
                    self._settings, self._location.write_output, run.run_id, "traceback.txt", failure.trace
                )
            except OSError as error:  # a full disk may be why the run failed
                _log.warning("traceback not written", run_id=run.run_id, error=repr(error))
            else:
                request.error.trace_uri = request.artifacts[_TRACEBACK] = trace_uri
                request.artifact_manifest.append(describe_text(_TRACEBACK, trace_uri, failure.trace))
        try:
            await reporter.fail(request)
        except RunLostError as lost:
            return Ending(_outcome_after(lost.refusal), str(lost))
        return Ending(Outcome.FAILED, f"{failure.type}: {failure.message}")

    async def _say_farewell(self, reporter: Reporter) -> None:
        request = run_report_service_pb2.FailRunRequest(
            error=run_pb2.RunError(type="WorkerStopped", message="the worker was stopped during the run")
        )
        with contextlib.suppress(RunLostError, DomainError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await reporter.fail(request)


def _tell_log(request: Result | run_report_service_pb2.FailRunRequest, report: Report) -> None:
    """Say when the last line of the run's log was printed, so that readers know when they have all of it."""
    if report.last_line_time is not None:
        request.last_log_time.FromMicroseconds(report.last_line_time)
        request.last_log_time.SetInParent()  # 1970 is the default, and says that there is none


def _reads_trainings(run: run_pb2.Run, instance: instance_pb2.Instance) -> bool:
    """Return whether a run reads what trainings of its instance have made, and what they were made with."""
    flows = (flow_pb2.FLOW_KIND_INFERENCE, flow_pb2.FLOW_KIND_MONITORING)
    return instance.HasField("model") and run.flow_kind in flows


def _hide_secrets(answer: Result) -> None:
    """Take what is secret out of what user code reported; where the output lies is not its to say."""
    reported = json_format.MessageToDict(answer.metrics)
    if (hidden := redact_value(reported)) != reported:
        answer.metrics.Clear()
        answer.metrics.update(hidden)


def _outcome_after(refusal: DomainError | None) -> Outcome:
    """Return how the flow run ends whose report was refused: as its run did, or CANCELLED where another one has the run."""
    status = refusal.metadata.get("status", "") if refusal is not None else ""
    return {"completed": Outcome.COMPLETED, "failed": Outcome.FAILED}.get(status, Outcome.CANCELLED)
