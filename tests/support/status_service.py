"""status-service in this process, and the events of the other services that it lives on."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from nats.aio.client import Client

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2, instance_pb2
from optaic.lineage.v1 import lineage_events_pb2, lineage_pb2
from optaic.run.v1 import run_events_pb2
from optaic.status.v1.status_service_pb2_grpc import StatusServiceStub
from servicekit.app import App, serve
from servicekit.clock import SystemClock
from servicekit.enums import enum_number
from servicekit.events import BATCH, Event, headers_of, make_event
from servicekit.ids import new_id
from servicekit.tokens import ReadTokens
from status_service import consumers
from status_service.app import build
from status_service.config import Settings
from status_service.use_cases.dependencies import Dependencies
from support.broker import connected, ensure_streams
from support.identities import tokens_file
from support.polling import eventually
from support.postgres import service_database

TENANT = "default"
PROJECT = "01900000-0000-7000-8000-000000000001"
START = datetime(2024, 1, 2, tzinfo=UTC)
_PARTICIPLES = {
    instance_events_pb2.InstanceCreated: "created",
    instance_events_pb2.InstanceUpdated: "updated",
    instance_events_pb2.InstanceActivated: "activated",
    instance_events_pb2.InstanceDeletionRequested: "deletion_requested",
    instance_events_pb2.InstanceDeleted: "deleted",
    lineage_events_pb2.FlowStatusesChanged: "flow_statuses_changed",
    run_events_pb2.FlowWaitChanged: "flow_wait_changed",
}


def instance(
    instance_id: str,
    name: str = "prices",
    *,
    revision: int = 1,
    kind: str = "DATASET",
    state: str = "PROVISIONING",
    flow_kinds: Sequence[str] = ("REFRESH",),
    priority: Sequence[str] = (),
    method: str = "",
    required: Sequence[str] = (),
    project_id: str = PROJECT,
) -> instance_pb2.Instance:
    """Return an instance as instance-service publishes it."""
    message = instance_pb2.Instance(
        instance_id=instance_id,
        name=name,
        project_id=project_id,
        revision=revision,
        kind=enum_number(instance_pb2.InstanceKind, kind.lower()),
        state=enum_number(instance_pb2.InstanceState, state.lower()),
        flows=[
            instance_pb2.Flow(flow_kind=enum_number(flow_pb2.FlowKind, each.lower())) for each in flow_kinds
        ],
    )
    contract = message.status_aggregation_contract
    contract.status_priority.extend(priority)
    contract.aggregation_method = method
    contract.required_flows.extend(enum_number(flow_pb2.FlowKind, each.lower()) for each in required)
    message.update_time.FromDatetime(START + timedelta(seconds=revision))
    return message


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """Return the reason of a refusal by status-service, and its metadata."""
    status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert info.domain == "status.optaic"
    return info


def flow_wait_changed(
    instance_id: str, number: int, upstreams: Sequence[str], *, flow_kind: str = "REFRESH"
) -> run_events_pb2.FlowWaitChanged:
    """Return what a scheduled time waits for, as run-service publishes it; without upstreams none waits."""
    message = run_events_pb2.FlowWaitChanged(
        instance_id=instance_id,
        flow_kind=enum_number(flow_pb2.FlowKind, flow_kind.lower()),
        number=number,
    )
    for name in upstreams:
        message.wait.flows.add(instance_name=name, reason="a run is active").flow.instance_id = new_id()
    if upstreams:
        message.wait.flow_count = len(upstreams)
        message.wait.scheduled_time.FromDatetime(START)
    return message


def flow_change(
    instance_id: str, status: str, *, flow_kind: str = "REFRESH", version: int = 0, run_number: int = 0
) -> lineage_events_pb2.FlowStatusChange:
    """Return a flow's state as lineage-service publishes it."""
    running = status == "RUNNING"
    change = lineage_events_pb2.FlowStatusChange(
        flow=flow_pb2.FlowRef(
            instance_id=instance_id, flow_kind=enum_number(flow_pb2.FlowKind, flow_kind.lower())
        ),
        status=enum_number(flow_pb2.Status, status.lower()),
        activity=lineage_pb2.FLOW_ACTIVITY_RUNNING if running else lineage_pb2.FLOW_ACTIVITY_IDLE,
        is_fresh=status == "READY",
        version=version,
        run_number=run_number,
    )
    if run_number:
        change.last_run_id = str(uuid.UUID(int=run_number))
        change.last_run_time.FromDatetime(START + timedelta(minutes=run_number))
    return change


def flow_statuses(
    revision: int, *changes: lineage_events_pb2.FlowStatusChange, **fields: Any
) -> lineage_events_pb2.FlowStatusesChanged:
    """Return a batch of changes."""
    return lineage_events_pb2.FlowStatusesChanged(revision=revision, changes=changes, **fields)


def event(message: Message, tenant_id: str = TENANT) -> Event:
    """Return the envelope that the owning service puts around a message."""
    match message:
        case lineage_events_pb2.FlowStatusesChanged():
            service, resource_id = "lineage", BATCH
        case run_events_pb2.FlowWaitChanged():
            service, resource_id = "run", message.instance_id
        case _:
            service, resource_id = "instance", message.instance.instance_id  # type: ignore[attr-defined]  # all others have it
    participle = _PARTICIPLES[type(message)]
    return make_event(service, tenant_id, message, participle, resource_id, SystemClock(), new_id)


@dataclass
class RunningStatusService:
    """A started service with a real channel to it and a real broker beside it."""

    app: App[Dependencies]
    stub: StatusServiceStub
    nats: Client

    async def publish(self, *messages: Message, tenant_id: str = TENANT) -> list[Event]:
        """Put events into the streams, as the services' relays do."""
        events = [event(message, tenant_id) for message in messages]
        await self.resend(*events)
        return events

    async def resend(self, *events: Event) -> None:
        """Put the same events into the streams again; the broker's own deduplication is evaded."""
        jetstream = self.nats.jetstream(timeout=5)
        for each in events:
            headers = {**headers_of(each), "Nats-Msg-Id": new_id()}
            await jetstream.publish(each.subject, each.payload, headers=headers)

    async def applied(self, *events: Event) -> None:
        """Wait until the service has applied these events."""
        wanted = {each.event_id: each for each in events}
        tenants = {each.tenant_id for each in events}
        rules = {
            "instance": (consumers.INSTANCE_CONSUMER,),
            "lineage": (consumers.LINEAGE_CONSUMER,),
            "run": (consumers.RUN_CONSUMER,),
        }
        tokens = ReadTokens(self.app.deps.database, rules)
        for tenant_id in tenants:
            mine = [each.token for each in wanted.values() if each.tenant_id == tenant_id]
            for start in range(0, len(mine), 64):
                await tokens.wait(tenant_id, mine[start : start + 64], None)


@contextlib.asynccontextmanager
async def status_service(nats_url: str, **settings: Any) -> AsyncIterator[RunningStatusService]:
    """Run the service on a fresh database. The session's PostgreSQL must be running."""
    async with (
        service_database("status", "status_service") as urls,
        running(nats_url, urls, **settings) as service,
    ):
        yield service


@contextlib.asynccontextmanager
async def running(
    nats_url: str, urls: dict[str, str], **settings: Any
) -> AsyncIterator[RunningStatusService]:
    """Run one replica of the service on a database that is there."""
    async with connected(nats_url) as client:
        await ensure_streams(client, "INSTANCE_EVENTS", "LINEAGE_EVENTS", "RUN_EVENTS")
        app = await build(
            Settings.model_validate(
                {
                    "shutdown_grace_seconds": 0.5,
                    "service_token": "service-secret",
                    "tokens_file": tokens_file(),
                    **urls,
                    "nats_url": nats_url,
                    **settings,
                }
            )
        )
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(stop, app))
        try:
            await eventually(lambda: app.server.address or serving.done())
            assert app.server.address, serving.exception()
            async with grpc.aio.insecure_channel(app.server.address) as channel:
                yield RunningStatusService(app, StatusServiceStub(channel), client)
        finally:
            stop.set()
            await serving
