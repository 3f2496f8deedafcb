"""run-service in this process, between peers and an orchestrator of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Any

import grpc
from google.protobuf.message import Message
from nats.aio.client import Client

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.rules.locations import flow_folder
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from optaic.run.v1.data_move_service_pb2_grpc import DataMoveServiceStub
from optaic.run.v1.run_report_service_pb2_grpc import RunReportServiceStub
from optaic.run.v1.run_service_pb2_grpc import RunServiceStub
from run_service.app import build
from run_service.config import Settings
from run_service.reconcile.dispatching import Dispatcher
from run_service.reconcile.due_work import due_auto_refreshes, due_retries, due_ticks
from run_service.reconcile.ending import Ender
from run_service.reconcile.leases import LeaseKeeper
from run_service.reconcile.observing import Observer
from run_service.reconcile.sweeping import Sweeper
from run_service.use_cases.dependencies import Dependencies
from servicekit.app import App, serve
from servicekit.enums import enum_word
from servicekit.errors import DomainError
from servicekit.events import BATCH, Event, headers_of, make_event
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from support.broker import connected, ensure_streams
from support.clock import FakeClock
from support.identities import Signed, caller, tokens_file
from support.orchestrator_runs import FakeOrchestrator
from support.polling import eventually
from support.postgres import service_database
from support.run_peers import SERVICE_TOKEN, Instances, Lineage, running_peers

TENANT = "default"


@dataclass
class RunningRunService:
    """A started service with real channels to it; its loops run only where the test asked for them."""

    app: App[Dependencies]
    runs: Any
    reports: Any
    instances: Instances
    lineage: Lineage
    orchestrator: FakeOrchestrator
    clock: FakeClock
    nats: Client
    address: str
    moves: Any
    peers: dict[str, str]  # their addresses, as settings
    events: list[tuple[str, bytes]] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)  # by executor and flow run
    credentials: dict[str, str] = field(default_factory=dict)  # the newest, by run

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(self.app.deps, self.orchestrator)
        self.observer = Observer(self.app.deps, self.orchestrator)
        self.ender = Ender(self.app.deps, self.orchestrator)
        self.sweeper = Sweeper(self.app.deps, self.orchestrator)
        self.leases = LeaseKeeper(self.app.deps)
        self.retrier = due_retries(self.app.deps)
        self.ticker = due_ticks(self.app.deps)
        self.follower = due_auto_refreshes(self.app.deps)

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

    async def dispatched(self, run_id: str) -> str:
        """Return the flow run that the dispatcher has made for a run."""
        while not (flow_run_id := (await self.get(run_id)).orchestrator_run_id):
            await self.dispatcher.step()
        return flow_run_id

    async def start(
        self, run_id: str, flow_run_id: str = "", executor: str = "worker", **fields: Any
    ) -> run_report_service_pb2.StartRunResponse:
        """Start a run, by default as the executor of its flow run."""
        flow_run_id = flow_run_id or await self.dispatched(run_id)
        request = self.request(flow_run_id, executor, **fields)
        request.run_id = run_id
        return await self.send(request)

    def request(
        self, flow_run_id: str, executor: str = "worker", **fields: Any
    ) -> run_report_service_pb2.StartRunRequest:
        """Return the request of an executor, which uses one start secret for one flow run."""
        secret = self.secrets.setdefault(f"{executor} {flow_run_id}", token_hex(32))
        return run_report_service_pb2.StartRunRequest(
            **{"orchestrator_run_id": flow_run_id, "executor": executor, "start_secret": secret, **fields}
        )

    async def send(
        self, request: run_report_service_pb2.StartRunRequest
    ) -> run_report_service_pb2.StartRunResponse:
        """Send the request, and keep the credential of the answer."""
        response: run_report_service_pb2.StartRunResponse = await self.reports.StartRun(request)
        if response.credential:
            self.credentials[response.run.run_id] = response.credential
        return response

    async def complete(
        self, run_id: str, fencing_token: str, *, digest: str = "d1", **fields: Any
    ) -> run_pb2.Run:
        uri = f"{await self.folder(run_id)}/data"
        run: run_pb2.Run = await self.reports.CompleteRun(
            run_report_service_pb2.CompleteRunRequest(
                **{
                    "run_id": run_id,
                    "fencing_token": fencing_token,
                    "credential": self.credentials.get(run_id, ""),
                    "output_version": flow_pb2.VersionRef(uri=uri, digest=digest, version=9, version_id="z"),
                    **fields,
                }
            )
        )
        return run

    async def complete_with_files(
        self, run_id: str, fencing_token: str, root: str, *names: str, content: bytes = b"x"
    ) -> run_pb2.Run:
        """Complete a run of a refresh that says it has written files of these names, with one content, below a data root."""
        run = await self.get(run_id)
        flow = f"{root}/{TENANT}/{run.instance_id}/refresh"
        place = f"{flow}/runs/{run_id}/"
        written = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return await self.complete(
            run_id,
            fencing_token,
            output_version=flow_pb2.VersionRef(uri=f"{flow}/data", digest="d"),
            outputs_uri=place,
            artifacts={name: f"{place}{name}.txt" for name in names} | {"data": f"{flow}/data"},
            artifact_manifest=[
                {"name": name, "uri": f"{place}{name}.txt", "media_type": "text/plain", **written}
                for name in names
            ],
        )

    async def folder(self, run_id: str) -> str:
        """Return the folder of a run's flow; of a run that does not exist, any folder."""
        try:
            run = await self.get(run_id)
        except grpc.aio.AioRpcError:
            return "file:///x"
        return (
            f"file:///x/{flow_folder(TENANT, run.instance_id, enum_word(flow_pb2.FlowKind, run.flow_kind))}"
        )

    async def fail(self, run_id: str, fencing_token: str, kind: str = "ValueError") -> run_pb2.Run:
        run: run_pb2.Run = await self.reports.FailRun(
            run_report_service_pb2.FailRunRequest(
                run_id=run_id,
                fencing_token=fencing_token,
                credential=self.credentials.get(run_id, ""),
                error=run_pb2.RunError(type=kind, message="no"),
            )
        )
        return run

    async def heartbeat(self, run_id: str, fencing_token: str, **fields: Any) -> None:
        credential = self.credentials.get(run_id, "")
        answer = await self.reports.Heartbeat(
            run_report_service_pb2.HeartbeatRequest(
                **{"run_id": run_id, "fencing_token": fencing_token, "credential": credential, **fields}
            )
        )
        self.credentials[run_id] = answer.credential

    async def activity_types(self, run_id: str) -> list[str]:
        response = await self.runs.ListActivities(run_service_pb2.ListActivitiesRequest(run_id=run_id))
        return [activity.type for activity in response.activities]

    async def outbox_types(self) -> list[str]:
        """Return the participles of the events written, in order; where no relay runs."""
        from sqlalchemy import text  # noqa: PLC0415 - only here

        async with self.app.deps.database.infra() as connection:
            rows = await connection.execute(text("select subject from outbox order by id"))
            return [row.subject.split(".")[4] for row in rows]

    async def outbox_payloads(self, participle: str) -> list[bytes]:
        """Return the payloads of the events of one kind, in order; where no relay runs."""
        from sqlalchemy import text  # noqa: PLC0415 - only here

        query = text("select payload from outbox where split_part(subject, '.', 5) = :participle order by id")
        async with self.app.deps.database.infra() as connection:
            rows = await connection.execute(query, {"participle": participle})
            return [bytes(row.payload) for row in rows]

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
async def run_service(
    nats_url: str,
    *,
    has_loops: bool = False,
    urls: dict[str, str] | None = None,
    orchestrator: Any = None,
    clock: FakeClock | None = None,
    **settings: Any,
) -> AsyncIterator[RunningRunService]:
    """Run the service with peers of its own, on a fresh database unless `urls` are given."""
    async with contextlib.AsyncExitStack() as stack:
        databases = urls or {}
        if not databases:
            databases = await stack.enter_async_context(service_database("run", "run_service"))
        instances, lineage, addresses = await stack.enter_async_context(running_peers(databases))
        client = await stack.enter_async_context(connected(nats_url))
        await ensure_streams(client, "INSTANCE_EVENTS", "LINEAGE_EVENTS")
        clock = clock or FakeClock()
        orchestrator = orchestrator or FakeOrchestrator()
        app = await build(
            Settings.model_validate(
                {
                    "shutdown_grace_seconds": 0.2,
                    "service_token": SERVICE_TOKEN,
                    "tokens_file": tokens_file(),
                    "nats_url": nats_url,
                    # A submission wakes the dispatcher; the observer waits for this time.
                    "dispatch_interval_seconds": 0.2,
                    **databases,
                    **addresses,
                    **settings,
                }
            ),
            clock=clock,
            orchestrator=orchestrator,
        )
        if not has_loops:
            app = replace(app, background={})
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(stop, app))
        try:
            await eventually(lambda: serving.done() or _is_serving(app))
            assert not serving.done(), serving.exception()
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(app.server.address))
            yield RunningRunService(
                app=app,
                runs=RunServiceStub(channel),
                reports=Signed(RunReportServiceStub(channel), caller("executor")),
                instances=instances,
                lineage=lineage,
                orchestrator=orchestrator,
                clock=clock,
                nats=client,
                address=app.server.address,
                peers=addresses,
                moves=Signed(DataMoveServiceStub(channel), caller("admin")),
            )
        finally:
            stop.set()
            await serving


def _is_serving(app: App[Dependencies]) -> bool:
    return bool(app.server.address)
