"""The services as a worker sees them."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2, definition_service_pb2_grpc
from optaic.expression import MACROS
from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc
from optaic.run.v1 import (
    run_pb2,
    run_report_service_pb2,
    run_report_service_pb2_grpc,
    run_service_pb2_grpc,
)
from servicekit.enums import enum_word
from servicekit.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError, UnimplementedError
from servicekit.ids import new_id
from support.identities import token_of

TENANT = "acme"
TOKEN = token_of("executor", TENANT)  # of the worker
CODE = {
    "sp500_prices": "worker.builtin.prices:SP500Prices",
    "expression": "worker.builtin.derivation:ExpressionPipeline",
    "file": "worker.builtin.typed_file_source:TypedFilePipeline",
    "file 1.1.0": "worker.builtin.file_source:FilePipeline",
    "sql": "worker.builtin.typed_sql_source:TypedSqlPipeline",
    "sql 1.1.0": "worker.builtin.sql_source:SqlPipeline",
    "delta": "worker.builtin.delta_store:DeltaStore",
    "parquet": "worker.builtin.parquet_store:ParquetStore",
    "simple": "worker.builtin.simple_accessor:SimpleAccessor",
    "field": "worker.builtin.field_accessor:FieldAccessor",
    "STD": "worker.builtin.language:Std",
    "TWICE": "support.worker_plugins:Twice",
    "MISNAMED": "support.worker_plugins:Twice",
    "probe": "support.worker_plugins:Probe",
    "dying": "support.dying_plugins:Dying",
    "attacking": "support.attacking_plugins:Attacking",
    "gated": "support.worker_plugins:GatedAccessor",
    "shown": "support.worker_plugins:Shown",
    "odd_column": "support.worker_plugins:OddColumn",
    "delta_next": "worker.builtin.delta_store:DeltaStore",
    "ridge": "worker.builtin.ml_modules:RidgeModule",
    "hist_gradient_boosting": "worker.builtin.ml_modules:HistGradientBoostingModule",
    "logistic_classifier": "worker.builtin.ml_modules:LogisticModule",
    "mean_model": "support.worker_models:MeanModel",
    "BACK": "support.worker_plugins:Back",
    "countdown": "support.worker_plugins:Countdown",
    "minimum_cvar": "worker.builtin.optimizers:MinimumCVaROptimizer",
    "equal_weight": "worker.builtin.optimizers:EqualWeightOptimizer",
    "told_weights": "support.told_weights:ToldWeights",
}
VERSION_IDS = {name: new_id() for name in CODE}
MACRO_IDS = {name: new_id() for name in MACROS}


class Instances(instance_service_pb2_grpc.InstanceServiceServicer):
    """instance-service: what the tests put in, at any revision."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[int, instance_pb2.Instance]] = {}
        self.most = 25  # of one answer, as if all were as large as they may be

    def put(self, instance: instance_pb2.Instance) -> instance_pb2.Instance:
        """Store the next revision."""
        instance = copy.deepcopy(instance)
        instance.instance_id = instance.instance_id or new_id()
        revisions = self.stored.setdefault(instance.instance_id, {})
        instance.revision = len(revisions) + 1
        revisions[instance.revision] = instance
        return instance

    def newest(self, instance_id: str) -> instance_pb2.Instance:
        """Return the newest revision."""
        revisions = self.stored.get(instance_id)
        if not revisions:
            raise NotFoundError("INSTANCE_NOT_FOUND", instance_id)
        return revisions[max(revisions)]

    async def GetInstance(self, request: Any, _: Any) -> Any:
        """Return the asked revision, or the newest."""
        newest = self.newest(request.instance_id)
        return self.stored[request.instance_id][request.revision] if request.revision else newest

    async def BatchGetInstances(self, request: Any, _: Any) -> Any:
        """Return the newest revisions."""
        if len(request.instance_ids) > self.most:
            raise InvalidArgumentError("TOO_LARGE", "ask for fewer")
        found = [self.newest(instance_id) for instance_id in request.instance_ids]
        return instance_service_pb2.BatchGetInstancesResponse(instances=found)

    CreateProject = GetProject = ListProjects = CreateInstance = ListInstances = None  # type: ignore[assignment] # never called by a worker
    UpdateInstance = DeleteInstance = PauseInstance = ResumeInstance = ListInstanceRevisions = None  # type: ignore[assignment] # the same
    DiffInstanceRevisions = PromoteDataset = PromoteModelVersion = ListModelPromotions = None  # type: ignore[assignment] # the same
    RehearseChanges = UpdateProject = DeleteProject = PreviewDeletion = RemoveChampion = None  # type: ignore[assignment] # the same


class Definitions(definition_service_pb2_grpc.DefinitionServiceServicer):
    """definition-service: the built-in definitions."""

    def __init__(self) -> None:
        self.content: dict[str, definition_pb2.DefinitionVersion] = {}  # what a test adds to one, by name

    async def GetDefinitionVersion(self, request: Any, _: Any) -> Any:
        """Return a built-in definition."""
        for name, version_id in VERSION_IDS.items():
            if version_id == request.definition_version_id:
                version = definition_pb2.DefinitionVersion(
                    definition_version_id=version_id,
                    definition_name=name,
                    code_ref=CODE[name],
                    version="1.0.0",
                    content_hash=f"hash of {name}",
                )
                version.MergeFrom(self.content.get(name, definition_pb2.DefinitionVersion()))
                return version
        for name, version_id in MACRO_IDS.items():
            if version_id == request.definition_version_id:
                macro = definition_pb2.OpMacro(
                    parameters=MACROS[name].parameters, expression=MACROS[name].text
                )
                return definition_pb2.DefinitionVersion(
                    definition_version_id=version_id, definition_name=name, op_macro=macro
                )
        raise NotFoundError("DEFINITION_VERSION_NOT_FOUND", request.definition_version_id)

    PublishDefinition = GetDefinition = ListDefinitions = None  # type: ignore[assignment] # never called by a worker
    ListDefinitionVersions = DeprecateDefinitionVersion = None  # type: ignore[assignment] # the same
    ActivateDefinitionVersion = RetireDefinitionVersion = None  # type: ignore[assignment] # the same


class Runs(run_report_service_pb2_grpc.RunReportServiceServicer):
    """run-service's reporting side: the state machine, fencing, and what was reported."""

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self.stored: dict[str, run_pb2.Run] = {}
        self.progress: list[tuple[float, str]] = []
        self.heartbeats = 0
        self.ticks: list[Any] = []
        self.refusal = ""  # reason with which scheduled ticks are refused at the gate
        self.is_fenced = False
        self.is_unsupported = False
        # That a flow run was made, and which.
        self.hints: asyncio.Queue[run_report_service_pb2.DispatchedRun | None] = asyncio.Queue()
        self.ends: list[Any] = []  # the requests that ended runs
        self.refused_code: set[str] = set()  # definitions whose code is not the code on record

    def submit(
        self,
        instance: instance_pb2.Instance,
        flow_kind: Any,
        inputs: Mapping[str, run_pb2.Run] | None = None,
        base: run_pb2.Run | None = None,
    ) -> run_pb2.Run:
        """Return a pending run at the instance's revision, pinned to the outputs of `inputs` (role -> run)."""
        run = run_pb2.Run(
            run_id=new_id(),
            instance_id=instance.instance_id,
            instance_revision=instance.revision,
            flow_kind=flow_kind,
            status=run_pb2.RUN_STATUS_PENDING,
            run_number=len(self.stored) + 1,
        )
        for role, upstream in (inputs or {}).items():
            output = upstream.output_version
            run.input_versions.add(
                role=role,
                instance_id=upstream.instance_id,
                flow_kind=upstream.flow_kind,
                version=1,
                version_id=upstream.run_id,
                digest=output.digest,
                uri=output.uri,
                physical_version=output.physical_version,
                instance_revision=upstream.instance_revision,
                readers_hash=output.readers_hash,
            )
        if base is not None:
            run.base_version.CopyFrom(base.output_version)
            run.base_version.compute_fingerprint = base.compute_fingerprint
            run.base_version.instance_revision = base.instance_revision
            run.base_version.is_partial_range = base.is_partial_range
        self.stored[run.run_id] = run
        return run

    async def StartRun(self, request: Any, _: Any) -> Any:
        """PENDING -> RUNNING."""
        if self.is_unsupported:
            raise UnimplementedError("UNSUPPORTED_FLOW", "not computed yet")
        if request.WhichOneof("target") == "scheduled":
            self.ticks.append(request.scheduled)
            flow = request.scheduled.flow
            run = self.submit(self.instances.newest(flow.instance_id), flow.flow_kind)
            run.scheduled_time.CopyFrom(request.scheduled.scheduled_time)
            if self.refusal:
                run.status = run_pb2.RUN_STATUS_CANCELLED
                run.error.type, run.error.message = self.refusal, "refused at the gate"
                return run_report_service_pb2.StartRunResponse(run=run)
        else:
            run = self.find(request.run_id)
        if run.status not in {run_pb2.RUN_STATUS_PENDING, run_pb2.RUN_STATUS_RUNNING}:
            raise _run_ended(run)
        if request.code:
            del run.code[:]
            run.code.extend(request.code)
            if refused := [each for each in run.code if each.definition_name in self.refused_code]:
                run.status = run_pb2.RUN_STATUS_FAILED
                run.error.type, run.error.message = "CODE_CHANGED", refused[0].definition_name
                return run_report_service_pb2.StartRunResponse(run=run)
        run.status = run_pb2.RUN_STATUS_RUNNING
        run.orchestrator_run_id = request.orchestrator_run_id
        answer = run_report_service_pb2.StartRunResponse(run=run, fencing_token=f"token-{run.run_id}")
        answer.lease.FromMilliseconds(3_000)
        answer.heartbeat_interval.FromMilliseconds(100)
        return answer

    async def Heartbeat(self, request: Any, _: Any) -> Any:
        """Note the progress."""
        self._check(request)
        run = self.find(request.run_id)
        if run.status != run_pb2.RUN_STATUS_RUNNING:
            raise _run_ended(run)
        self.heartbeats += 1
        if request.HasField("progress_pct"):
            self.progress.append((request.progress_pct, request.progress_message))
        return run_report_service_pb2.HeartbeatResponse()

    async def WatchDispatches(self, _request: Any, _: Any) -> Any:
        """Send a message at once and after each hint."""
        named = None
        while True:
            yield run_report_service_pb2.WatchDispatchesResponse(dispatched_run=named)
            named = await self.hints.get()

    async def ListTrainedVersions(self, request: Any, _: Any) -> Any:
        """Return the completed trainings of the run's instance, newest first."""
        self._check(request)
        asking = self.find(request.run_id)
        own = asking.instance_id
        monitored = [each.version_id for each in asking.input_versions if each.role == "monitored"]
        completed = [
            run
            for run in self.stored.values()
            if (run.instance_id, run.flow_kind, run.status)
            == (own, flow_pb2.FLOW_KIND_TRAINING, run_pb2.RUN_STATUS_COMPLETED)
        ]
        return run_report_service_pb2.ListTrainedVersionsResponse(
            trained_versions=[
                run_report_service_pb2.TrainedVersion(
                    run_id=run.run_id,
                    run_number=run.run_number,
                    instance_revision=run.instance_revision,
                    uri=run.output_version.uri,
                    digest=run.output_version.digest,
                    train_end=run.training.train_end,
                    label_end=run.training.label_end,
                    artifact_manifest=run.artifact_manifest,
                )
                for run in reversed(completed)
            ],
            monitored_run_id=self.stored[monitored[0]].inference.model_run_id if any(monitored) else "",
        )

    async def CompleteRun(self, request: Any, _: Any) -> Any:
        """Set the run COMPLETED."""
        run = self._end(request, run_pb2.RUN_STATUS_COMPLETED)
        run.metrics.CopyFrom(request.metrics)
        run.output_version.CopyFrom(request.output_version)
        run.outputs_uri = request.outputs_uri
        run.artifacts.update(request.artifacts)
        run.artifact_manifest.extend(request.artifact_manifest)
        run.telemetry_pending[:] = request.telemetry_pending
        run.model_artifact_version = request.model_artifact_version
        run.is_partial_range |= request.is_partial_range
        getattr(run, request.WhichOneof("result")).CopyFrom(getattr(request, request.WhichOneof("result")))
        return run

    async def ReportTelemetry(self, request: Any, _: Any) -> Any:
        """Settle what a completed run owes; a run whose token is gone was given up."""
        self._check(request)
        run = self.find(request.run_id)
        if run.status in {run_pb2.RUN_STATUS_PENDING, run_pb2.RUN_STATUS_RUNNING}:
            raise FailedPreconditionError("RUN_NOT_ENDED", "it has not ended")
        if request.state and request.system in run.telemetry_pending:
            run.telemetry_pending.remove(request.system)
            if request.mlflow_run_id:
                run.training.mlflow_run_id, run.training.model_version = (
                    request.mlflow_run_id,
                    request.model_version,
                )
        return run

    async def FailRun(self, request: Any, _: Any) -> Any:
        """Set the run FAILED."""
        run = self._end(request, run_pb2.RUN_STATUS_FAILED)
        run.error.CopyFrom(request.error)
        run.artifacts.update(request.artifacts)
        run.artifact_manifest.extend(request.artifact_manifest)
        return run

    def _end(self, request: Any, status: Any) -> run_pb2.Run:
        self._check(request)
        self.ends.append(request)
        run = self.find(request.run_id)
        if run.status not in {run_pb2.RUN_STATUS_RUNNING, status}:
            raise _run_ended(run)
        run.status = status
        return run

    def _check(self, request: Any) -> None:
        if self.is_fenced or request.fencing_token != f"token-{request.run_id}":
            raise FailedPreconditionError("FENCED", "another executor has the run")

    def find(self, run_id: str) -> run_pb2.Run:
        """Return a run that was submitted."""
        if run_id not in self.stored:
            raise NotFoundError("RUN_NOT_FOUND", run_id)
        return self.stored[run_id]


class RunReads(run_service_pb2_grpc.RunServiceServicer):
    """run-service's reading side."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def GetRun(self, request: Any, _: Any) -> Any:
        """As it is now."""
        return self._runs.find(request.run_id)


def _run_ended(run: run_pb2.Run) -> FailedPreconditionError:
    status = enum_word(run_pb2.RunStatus, run.status)
    return FailedPreconditionError("RUN_ENDED", "the run has ended", metadata={"status": status})


def fill_composition(dataset: Any, definition: str, config: Mapping[str, Any], store: str = "delta") -> None:
    """Pin a dataset's three components, as instance-service answers them."""
    for component, name in (
        (dataset.pipeline, definition),
        (dataset.store, store),
        (dataset.accessor, "simple"),
    ):
        pin(component, name)
    dataset.pipeline.config.update(config)


def pin(component: Any, name: str, **config: Any) -> None:
    """Pin a component to a built-in definition."""
    component.definition_name = name
    component.definition_version_id = VERSION_IDS[name]
    component.ClearField("config")
    component.config.update(config)
