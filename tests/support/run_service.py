"""run-service in this process, its peers as small servers of their own, and an orchestrator in memory."""

# ruff: noqa: N802 - named as the RPCs and port methods that they are

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import grpc
import nats
from google.protobuf.message import Message
from nats.aio.client import Client

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc
from optaic.lineage.v1 import lineage_service_pb2, lineage_service_pb2_grpc
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from optaic.run.v1.run_report_service_pb2_grpc import RunReportServiceStub
from optaic.run.v1.run_service_pb2_grpc import RunServiceStub
from run_service.app import App, build
from run_service.config import Settings
from run_service.ports import (
    DeploymentMissingError,
    FlowRunRequest,
    FlowRunState,
    OrchestratorUnavailableError,
)
from run_service.reconcile.dispatching import Dispatcher
from run_service.reconcile.leases import LeaseKeeper
from run_service.reconcile.observing import Observer
from run_service.reconcile.retrying import Retrier
from run_service.reconcile.ticking import Ticker
from servicekit import runtime
from servicekit.auth import Authenticator
from servicekit.errors import DomainError, NotFoundError, UnavailableError
from servicekit.events import BATCH, Event, headers_of, make_event
from servicekit.ids import new_id
from servicekit.server import Server
from servicekit.settings import ServiceSettings
from servicekit.status import from_rpc_error
from support.clock import FakeClock
from support.polling import eventually
from support.postgres import service_database

TENANT = "default"
SERVICE_TOKEN = "service-secret"
REFRESH = flow_pb2.FLOW_KIND_REFRESH
_PEER_STREAMS = {"INSTANCE_EVENTS": ["optaic.*.instance.v1.>"], "LINEAGE_EVENTS": ["optaic.*.lineage.v1.>"]}

Answer = lineage_service_pb2.CheckUpstreamFreshnessResponse
Check = lineage_service_pb2.CheckUpstreamFreshnessRequest


class Instances(instance_service_pb2_grpc.InstanceServiceServicer):
    """Knows the instances that a test adds."""

    def __init__(self) -> None:
        self.by_id: dict[str, instance_pb2.Instance] = {}

    def add(
        self,
        *,
        kind: str = "DATASET",
        flow_kind: flow_pb2.FlowKind.ValueType = REFRESH,
        upstreams: Collection[instance_pb2.Instance] = (),
        state: str = "ACTIVE",
    ) -> instance_pb2.Instance:
        """Add an instance with one flow."""
        instance = instance_pb2.Instance(
            instance_id=new_id(),
            name=f"i{len(self.by_id)}",
            kind=instance_pb2.InstanceKind.Value(f"INSTANCE_KIND_{kind}"),
            state=instance_pb2.InstanceState.Value(f"INSTANCE_STATE_{state}"),
            revision=1,
        )
        flow = instance.flows.add(flow_kind=flow_kind, compute_fingerprint="f" * 64)
        for upstream in upstreams:
            flow.upstreams.add(role="input").upstream.CopyFrom(flow_of(upstream))
        self.by_id[instance.instance_id] = instance
        return instance

    async def GetInstance(
        self, request: instance_service_pb2.GetInstanceRequest, _: Any
    ) -> instance_pb2.Instance:
        return self._get(request.instance_id)

    async def BatchGetInstances(
        self, request: instance_service_pb2.BatchGetInstancesRequest, _: Any
    ) -> instance_service_pb2.BatchGetInstancesResponse:
        return instance_service_pb2.BatchGetInstancesResponse(
            instances=[self._get(instance_id) for instance_id in request.instance_ids]
        )

    def _get(self, instance_id: str) -> instance_pb2.Instance:
        if instance_id not in self.by_id:
            raise NotFoundError("INSTANCE_NOT_FOUND", f"there is no instance {instance_id}")
        return self.by_id[instance_id]


class Lineage(lineage_service_pb2_grpc.LineageServiceServicer):
    """Answers what a test says; everything is ready unless it says otherwise."""

    def __init__(self) -> None:
        self.requests: list[Check] = []
        self.answer: Callable[[Check], Answer] = lambda _: Answer(all_ready=True, lineage_revision=7)

    async def CheckUpstreamFreshness(self, request: Check, _: Any) -> Answer:
        self.requests.append(request)
        return self.answer(request)

    async def BatchCheckUpstreamFreshness(
        self, request: lineage_service_pb2.BatchCheckUpstreamFreshnessRequest, _: Any
    ) -> lineage_service_pb2.BatchCheckUpstreamFreshnessResponse:
        self.requests.extend(request.requests)
        return lineage_service_pb2.BatchCheckUpstreamFreshnessResponse(
            responses=[self.answer(each) for each in request.requests]
        )


class FakeOrchestrator:
    """Implements `run_service.ports.Orchestrator` as Prefect behaves; held to it by the conformance suite."""

    def __init__(self) -> None:
        self.has_every_deployment = True
        self.deployments: set[tuple[str, str, str]] = set()
        self.flow_runs: dict[str, FlowRunState] = {}
        self.ids_by_run: dict[str, str] = {}
        self.creations: list[FlowRunRequest] = []
        self.is_down = False
        self.lost_answers = 0  # that many creations take effect, and nobody hears of it
        self.before_answer: Callable[[str], Any] | None = None

    def _check(self) -> None:
        if self.is_down:
            raise OrchestratorUnavailableError("down")

    async def ping(self) -> None:
        self._check()

    async def create_flow_run(self, request: FlowRunRequest) -> str:
        self._check()
        key = (request.tenant_id, request.instance_id, request.flow_kind)
        if not self.has_every_deployment and key not in self.deployments:
            raise DeploymentMissingError(str(key))
        if request.run_id not in self.ids_by_run:
            flow_run_id = str(uuid.uuid4())
            self.ids_by_run[request.run_id] = flow_run_id
            self.flow_runs[flow_run_id] = FlowRunState.ACTIVE
            self.creations.append(request)
        flow_run_id = self.ids_by_run[request.run_id]
        if self.lost_answers:
            self.lost_answers -= 1
            raise OrchestratorUnavailableError("the answer was lost")
        if self.before_answer is not None:
            await self.before_answer(flow_run_id)
        return flow_run_id

    async def find_flow_run(self, run_id: str) -> str | None:
        self._check()
        return self.ids_by_run.get(run_id)

    async def get_states(self, flow_run_ids: Collection[str]) -> dict[str, FlowRunState]:
        self._check()
        return {each: self.flow_runs[each] for each in flow_run_ids if each in self.flow_runs}

    async def cancel_flow_run(self, flow_run_id: str) -> None:
        self._check()
        if self.flow_runs.get(flow_run_id) is FlowRunState.ACTIVE:
            self.flow_runs[flow_run_id] = FlowRunState.CANCELLED

    def delete_flow_run(self, flow_run_id: str) -> None:
        """Somebody deletes it in the orchestrator; its idempotency key is free again."""
        del self.flow_runs[flow_run_id]
        self.ids_by_run = {run: each for run, each in self.ids_by_run.items() if each != flow_run_id}


def flow_of(instance: instance_pb2.Instance) -> flow_pb2.FlowRef:
    """The instance's first flow."""
    return flow_pb2.FlowRef(instance_id=instance.instance_id, flow_kind=instance.flows[0].flow_kind)


@dataclass
class RunningRunService:
    """A started service with real channels to it; its loops run only where the test asked for them."""

    app: App
    runs: Any
    reports: Any
    instances: Instances
    lineage: Lineage
    orchestrator: FakeOrchestrator
    clock: FakeClock
    nats: Client
    address: str
    events: list[tuple[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(self.app.deps, self.orchestrator)
        self.observer = Observer(self.app.deps, self.orchestrator)
        self.leases = LeaseKeeper(self.app.deps)
        self.retrier = Retrier(self.app.deps)
        self.ticker = Ticker(self.app.deps)

    async def submit(self, instance: instance_pb2.Instance, **fields: Any) -> run_pb2.Run:
        run: run_pb2.Run = await self.runs.SubmitRun(
            run_service_pb2.SubmitRunRequest(instance_id=instance.instance_id, **fields)
        )
        return run

    async def get(self, run_id: str) -> run_pb2.Run:
        run: run_pb2.Run = await self.runs.GetRun(run_service_pb2.GetRunRequest(run_id=run_id))
        return run

    async def cancel(self, run_id: str, **fields: Any) -> run_pb2.Run:
        run: run_pb2.Run = await self.runs.CancelRun(
            run_service_pb2.CancelRunRequest(run_id=run_id, **fields)
        )
        return run

    async def start(
        self, run_id: str, flow_run_id: str = "", executor: str = "worker"
    ) -> run_report_service_pb2.StartRunResponse:
        response: run_report_service_pb2.StartRunResponse = await self.reports.StartRun(
            run_report_service_pb2.StartRunRequest(
                run_id=run_id, orchestrator_run_id=flow_run_id or str(uuid.uuid4()), executor=executor
            )
        )
        return response

    async def complete(
        self, run_id: str, fencing_token: str, *, digest: str = "d1", **fields: Any
    ) -> run_pb2.Run:
        run: run_pb2.Run = await self.reports.CompleteRun(
            run_report_service_pb2.CompleteRunRequest(
                run_id=run_id,
                fencing_token=fencing_token,
                output_version=flow_pb2.VersionRef(uri="file:///x", digest=digest, version=9, version_id="z"),
                **fields,
            )
        )
        return run

    async def fail(self, run_id: str, fencing_token: str, kind: str = "ValueError") -> run_pb2.Run:
        run: run_pb2.Run = await self.reports.FailRun(
            run_report_service_pb2.FailRunRequest(
                run_id=run_id, fencing_token=fencing_token, error=run_pb2.RunError(type=kind, message="no")
            )
        )
        return run

    async def heartbeat(self, run_id: str, fencing_token: str, **fields: Any) -> None:
        await self.reports.Heartbeat(
            run_report_service_pb2.HeartbeatRequest(run_id=run_id, fencing_token=fencing_token, **fields)
        )

    async def activity_types(self, run_id: str) -> list[str]:
        response = await self.runs.ListActivities(run_service_pb2.ListActivitiesRequest(run_id=run_id))
        return [activity.type for activity in response.activities]

    async def outbox_types(self) -> list[str]:
        """The participles of the events written, in order; where no relay runs."""
        from sqlalchemy import text  # noqa: PLC0415 - only here

        async with self.app.deps.database.infra() as connection:
            rows = await connection.execute(text("select subject from outbox order by id"))
            return [row.subject.split(".")[4] for row in rows]

    async def publish(
        self, service: str, message: Message, participle: str, resource_id: str = BATCH
    ) -> Event:
        """Put a peer's event into its stream."""
        event = make_event(service, TENANT, message, participle, resource_id, self.clock, new_id)
        await self.nats.jetstream().publish(event.subject, event.payload, headers=headers_of(event))
        return event

    async def pass_time(self, seconds: float) -> None:
        """Let time pass while the lease keeper keeps looking."""
        while seconds > 0:
            step = min(5.0, seconds)
            self.clock.advance(step)
            seconds -= step
            await self.leases.step()


@contextlib.asynccontextmanager
async def refused(reason: str) -> AsyncIterator[list[DomainError]]:
    """Expect the block to be refused with this reason."""
    errors: list[DomainError] = []
    try:
        yield errors
    except grpc.aio.AioRpcError as error:
        meaning = from_rpc_error(error)
        assert meaning.reason == reason, meaning
        errors.append(meaning)
    else:
        raise AssertionError(f"not refused with {reason}")


@contextlib.asynccontextmanager
async def _peer(
    urls: dict[str, str], domain: str, add: Any, servicer: object, name: str
) -> AsyncIterator[str]:
    settings = ServiceSettings.model_validate(
        {**urls, "service_token": SERVICE_TOKEN, "shutdown_grace_seconds": 0.1}
    )
    server = Server(settings, domain, domain, [(add, servicer, name)], Authenticator(settings))
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def run_service(
    nats_url: str,
    *,
    has_loops: bool = False,
    urls: dict[str, str] | None = None,
    orchestrator: Any = None,
    **settings: Any,
) -> AsyncIterator[RunningRunService]:
    """Run the service with peers of its own, on a fresh database unless `urls` are given."""
    async with contextlib.AsyncExitStack() as stack:
        databases = urls or {}
        if not databases:
            databases = await stack.enter_async_context(service_database("run", "run_service"))
        # The generated classes are abstract to the type checker; at run time a missing method is unimplemented.
        instances, lineage = Instances(), Lineage()  # type: ignore[abstract]
        addresses = {
            "instance_address": await stack.enter_async_context(
                _peer(
                    databases,
                    "instance.optaic",
                    instance_service_pb2_grpc.add_InstanceServiceServicer_to_server,
                    instances,
                    "optaic.instance.v1.InstanceService",
                )
            ),
            "lineage_address": await stack.enter_async_context(
                _peer(
                    databases,
                    "lineage.optaic",
                    lineage_service_pb2_grpc.add_LineageServiceServicer_to_server,
                    lineage,
                    "optaic.lineage.v1.LineageService",
                )
            ),
        }
        client = await nats.connect(nats_url)
        stack.push_async_callback(client.close)
        for name, subjects in _PEER_STREAMS.items():
            await client.jetstream().add_stream(name=name, subjects=subjects)
        clock = FakeClock()
        orchestrator = orchestrator or FakeOrchestrator()
        app = await build(
            Settings.model_validate(
                {
                    "shutdown_grace_seconds": 0.2,
                    "service_token": SERVICE_TOKEN,
                    "nats_url": nats_url,
                    "dispatch_interval_seconds": 0.05,
                    **databases,
                    **addresses,
                    **settings,
                }
            ),
            clock=clock,
            orchestrator=orchestrator,
        )
        if not has_loops:
            app.background = {}
        stop = asyncio.Event()
        serving = asyncio.create_task(
            runtime.serve(stop, server=app.server, background=app.background, close=app.close)
        )
        try:
            await eventually(lambda: serving.done() or _is_serving(app))
            assert not serving.done(), serving.exception()
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(app.server.address))
            yield RunningRunService(
                app=app,
                runs=RunServiceStub(channel),
                reports=RunReportServiceStub(channel),
                instances=instances,
                lineage=lineage,
                orchestrator=orchestrator,
                clock=clock,
                nats=client,
                address=app.server.address,
            )
        finally:
            stop.set()
            await serving


def _is_serving(app: App) -> bool:
    return bool(app.server.address)


def unavailable(_: Check) -> Answer:
    """Lineage-service has a bad day."""
    raise UnavailableError("DATABASE_UNAVAILABLE", "retry")
