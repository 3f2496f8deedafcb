"""instance-service in this process, with a deployment server that tests can break."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import psycopg
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from nats.aio.client import Client

from instance_service.app import Outside, build
from instance_service.config import Settings
from instance_service.use_cases.definitions.plugins import publish_plugins
from instance_service.use_cases.dependencies import Dependencies
from optaic.definition.v1.definition_service_pb2_grpc import DefinitionServiceStub
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_ACTIVE, Instance, Project
from optaic.instance.v1.instance_service_pb2 import (
    CreateInstanceRequest,
    CreateProjectRequest,
    GetInstanceRequest,
    UpdateInstanceRequest,
)
from optaic.instance.v1.instance_service_pb2_grpc import InstanceServiceStub
from optaic.lineage.v1.lineage_events_pb2 import LineageCleared
from optaic.run.v1.run_events_pb2 import RunCompleted, RunSubmitted
from optaic.run.v1.run_pb2 import Run
from servicekit.app import App, serve
from servicekit.clock import SystemClock
from servicekit.database import Database
from servicekit.events import headers_of, make_event
from servicekit.ids import new_id
from servicekit.signing import Signer
from support.broker import connected, ensure_streams
from support.counterparts import FakeDeployments, FakeExperiments, FakeProjects
from support.identities import tokens_file
from support.polling import eventually
from support.postgres import service_database

TENANT = "default"
_TABLES = (
    "projects", "instances", "instance_revisions", "components", "macro_uses", "datasets", "signals", "backtests",
    "experiments", "models", "portfolio_optimizers",
    "flows", "flow_edges", "outputs", "reconciliations", "request_replies",
)  # fmt: skip


@dataclass
class RunningInstanceService:
    """A started service, stubs on a real channel to it, and a real broker beside it."""

    app: App[Dependencies]
    deployments: FakeDeployments
    experiments: FakeExperiments
    projects: FakeProjects
    definitions: DefinitionServiceStub
    instances: InstanceServiceStub
    nats: Client
    owner_url: str

    async def project(self, name: str = "research") -> Project:
        """Create a project."""
        request = CreateProjectRequest(project=Project(name=name))
        created: Project = await self.instances.CreateProject(request)
        return created

    async def create(self, given: dict[str, Any], **fields: Any) -> Instance:
        """Create an instance out of JSON."""
        instance = json_format.ParseDict(given, Instance())
        created: Instance = await self.instances.CreateInstance(
            CreateInstanceRequest(instance=instance, **fields)
        )
        return created

    async def update(self, instance_id: str, given: dict[str, Any], *paths: str, **fields: Any) -> Instance:
        """Update the paths of an instance out of JSON."""
        request = UpdateInstanceRequest(
            instance=json_format.ParseDict({"instanceId": instance_id, **given}, Instance()), **fields
        )
        request.update_mask.paths.extend(paths)
        updated: Instance = await self.instances.UpdateInstance(request)
        return updated

    async def prices(self, project_id: str, name: str = "sp500_prices", **fields: Any) -> Instance:
        """Create a dataset that reads nothing."""
        pipeline = {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}}
        return await self.create(
            {"projectId": project_id, "name": name, "dataset": {"pipeline": pipeline}, **fields}
        )

    async def derived(self, project_id: str, name: str, *upstreams: str, **fields: Any) -> Instance:
        """Create a dataset that is an expression over others."""
        return await self.create(derived(project_id, name, *upstreams) | fields)

    async def signal(self, project_id: str, name: str, *upstreams: str, **fields: Any) -> Instance:
        """Create a signal that is an expression over others."""
        given = derived(project_id, name, *upstreams)
        given["signal"] = {"dataset": given.pop("dataset")}
        return await self.create(given | fields)

    async def clear_lineage(self, instance_id: str, tenant_id: str = TENANT) -> None:
        """Say what lineage-service says when nothing of an instance is left."""
        message = LineageCleared(instance_id=instance_id)
        await self._publish("lineage", tenant_id, message, "cleared", instance_id)

    async def publish_run(self, run: Run, participle: str = "completed", tenant_id: str = TENANT) -> str:
        """Say what run-service says of a run; return the token of the event."""
        message = (RunCompleted if participle == "completed" else RunSubmitted)(run=run)
        return await self._publish("run", tenant_id, message, participle, run.instance_id)

    async def _publish(
        self, service: str, tenant_id: str, message: Message, participle: str, instance_id: str
    ) -> str:
        event = make_event(service, tenant_id, message, participle, instance_id, SystemClock(), new_id)
        await self.nats.jetstream().publish(event.subject, event.payload, headers=headers_of(event))
        return event.token

    async def row_counts(self, *tables: str) -> dict[str, int]:
        """Return how many rows each table has, past all policies; of instances, unless others are named."""
        url = self.owner_url.replace("+psycopg", "").replace("instance_owner", "postgres")
        async with await psycopg.AsyncConnection.connect(url) as connection:
            counts = {}
            for table in tables or _TABLES:
                row = await (await connection.execute(f"select count(*) from {table}")).fetchone()  # noqa: S608 - constants
                counts[table] = row[0] if row else 0
            return counts

    async def until_active(self, instance_id: str) -> Instance:
        """Return the instance once its deployments exist."""
        return await self.until(instance_id, lambda found: found.state == INSTANCE_STATE_ACTIVE)

    async def until(self, instance_id: str, condition: Any) -> Instance:
        """Return the instance once a condition holds."""

        async def look() -> Any:
            found: Instance = await self.instances.GetInstance(GetInstanceRequest(instance_id=instance_id))
            return found if condition(found) else None

        reached: Instance = await eventually(look)
        return reached


def derived(project_id: str, name: str, *upstreams: str) -> dict[str, Any]:
    """Return an expression dataset over others, as JSON."""
    return {
        "projectId": project_id,
        "name": name,
        "dataset": {"pipeline": {"definitionName": "expression", "config": {"expression": "close"}}},
        "upstreamRefs": [{"resourceId": upstream, "role": "input"} for upstream in upstreams],
    }


@dataclass(frozen=True)
class Refusal:
    """What a failed call said."""

    code: grpc.StatusCode
    reason: str
    fields: dict[str, str]
    field_reasons: dict[str, str]
    preconditions: list[tuple[str, str]]
    message: str


async def refusal(call: Any) -> Refusal:
    """Return how a call is refused; fail where it is not."""
    try:
        answer: Message = await call
    except grpc.aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
        info, bad, failure = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.PreconditionFailure(),
        )
        for detail in status.details:
            for target in (info, bad, failure):
                if detail.Is(target.DESCRIPTOR):
                    detail.Unpack(target)
        return Refusal(
            error.code(),
            info.reason,
            {item.field: item.description for item in bad.field_violations},
            {item.field: item.reason for item in bad.field_violations},
            [(item.type, item.subject) for item in failure.violations],
            error.details() or "",
        )
    raise AssertionError(f"not refused: {answer}")


async def _publish_built_in(urls: dict[str, Any]) -> None:
    database = Database(Settings.model_validate({**urls, "service_token": "service-secret"}))
    await database.open()
    await publish_plugins(
        Dependencies(database, SystemClock(), new_id, Signer(bytes(32)), installation_id=""), (TENANT,)
    )
    await database.close()


@contextlib.asynccontextmanager
async def instance_database() -> AsyncIterator[dict[str, Any]]:
    """Yield a fresh database in which the built-in definitions are published: a second's work, done once."""
    async with service_database("instance", "instance_service", _publish_built_in) as urls:
        yield urls


@contextlib.asynccontextmanager
async def instance_service(nats_url: str, **settings: Any) -> AsyncIterator[RunningInstanceService]:
    """Run the service on a fresh database. The session's PostgreSQL must be running."""
    async with (
        instance_database() as urls,
        running(nats_url, urls, FakeDeployments(), **settings) as service,
    ):
        yield service


@contextlib.asynccontextmanager
async def running(
    nats_url: str,
    urls: dict[str, str],
    deployments: Any,
    experiments: Any = None,
    projects: Any = None,
    **settings: Any,
) -> AsyncIterator[RunningInstanceService]:
    """Run one replica of the service on a database that is there."""
    async with connected(nats_url) as client:
        await ensure_streams(client, "LINEAGE_EVENTS", "RUN_EVENTS")
        values = {
            "shutdown_grace_seconds": 0.5,
            "service_token": "service-secret",
            "tokens_file": tokens_file(),
            # A change wakes the reconciler. A look without a reason costs CPU time of its own, for as long as a test waits.
            "drift_interval_seconds": 0.5,
            "reconcile_interval_seconds": 0.5,
            **urls,
            "nats_url": nats_url,
            **settings,
        }
        experiments = experiments or FakeExperiments()
        projects = projects or FakeProjects()
        app = await build(Settings.model_validate(values), Outside(deployments, experiments, projects))
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(stop, app))
        try:
            await eventually(lambda: app.server.address or serving.done())
            assert app.server.address, serving.exception()
            async with grpc.aio.insecure_channel(app.server.address) as channel:
                yield RunningInstanceService(
                    app,
                    deployments,
                    experiments,
                    projects,
                    DefinitionServiceStub(channel),
                    InstanceServiceStub(channel),
                    client,
                    urls["database_owner_url"],
                )
        finally:
            stop.set()
            await serving
