"""What was lost between the services is published again, and what comes again changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from devstack.postgres import Postgres
from instance_service.use_cases.comparison import list_tenants
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH, FlowRef
from optaic.instance.v1.instance_comparison_pb2 import InstancesWanted
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import DeleteInstanceRequest, GetInstanceRequest
from optaic.lineage.v1.lineage_comparison_pb2 import FlowsWanted
from optaic.lineage.v1.lineage_service_pb2 import GetFlowStateRequest
from optaic.run.v1.run_comparison_pb2 import RunsWanted
from optaic.status.v1.status_service_pb2 import GetInstanceStatusRequest, ListInstanceStatusesRequest
from servicekit.comparison import compare_now
from support.broker import NatsServer
from support.control_plane import ControlPlane, control_plane
from support.instance_service import TENANT, RunningInstanceService, instance_service
from support.lineage_service import lineage_service
from support.polling import eventually
from support.status_service import status_service

_KEPT = {
    "lineage": ("edges", "versions", "flows", "instances", "consumed_events"),
    "status": ("flows", "instances", "instance_statuses", "consumed_events"),
}


class World:
    """Two datasets of which one reads the other, both computed, and one that was deleted."""

    def __init__(self, plane: ControlPlane, nats: NatsServer) -> None:
        self.plane = plane
        self.nats = nats
        self.instances: dict[str, Instance] = {}

    async def create(self) -> None:
        """Make it, and wait until everybody knows."""
        project = (await self.plane.instance.project()).project_id
        prices = await self.plane.instance.prices(project, "prices")
        momentum = await self.plane.instance.derived(project, "momentum", prices.instance_id)
        gone = await self.plane.instance.prices(project, "gone")
        self.instances = {"prices": prices, "momentum": momentum, "gone": gone}
        await self.plane.rest()
        for name in ("prices", "momentum"):
            await self.run(name)
        await self.delete("gone")
        await self.plane.rest()

    async def run(self, name: str, **fields: Any) -> None:
        """Run one of them; what it writes is new."""
        run = self.plane.run
        submitted = await run.submit(self.instances[name], **fields)

        async def dispatched() -> str:
            return (await run.get(submitted.run_id)).orchestrator_run_id

        started = await run.start(submitted.run_id, await eventually(dispatched))
        await run.complete(submitted.run_id, started.fencing_token, digest=submitted.run_id)

    async def delete(self, name: str) -> None:
        """Delete one, and wait until it is gone."""
        service, instance_id = self.plane.instance, self.instances[name].instance_id
        await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=instance_id))
        await eventually(lambda: _is_gone(service, instance_id), 60)

    async def known(self) -> dict[str, Any]:
        """Return what lineage-service and status-service know."""
        known: dict[str, Any] = {}
        listed = await self.plane.status.stub.ListInstanceStatuses(ListInstanceStatusesRequest())
        for status in listed.instance_statuses:
            (flow,) = status.flows
            known[status.instance_name] = (
                status.status,
                status.instance_state,
                flow.version,
                flow.last_run_id,
            )
        for name, instance in self.instances.items():
            request = GetFlowStateRequest(
                flow=FlowRef(instance_id=instance.instance_id, flow_kind=FLOW_KIND_REFRESH)
            )
            try:
                state = await self.plane.lineage.stub.GetFlowState(request)
            except grpc.aio.AioRpcError:
                continue
            known[f"flow of {name}"] = (state.status, state.current_version.version_id, state.run_number)
        return known

    async def becomes(self, expected: dict[str, Any]) -> None:
        """Compare now, as an operator does, until all is as expected: what is asked for may lead to more."""

        async def is_so() -> bool:
            await compare_now(self.nats.url, 60)
            await self.plane.rest()
            return await self.known() == expected

        await eventually(is_so, 120)


async def _is_gone(service: RunningInstanceService, instance_id: str) -> bool:
    try:
        await service.instances.GetInstance(GetInstanceRequest(instance_id=instance_id))
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.NOT_FOUND
    return False


async def _execute(plane: ControlPlane, service: str, *statements: str, **parameters: str) -> None:
    database = plane.lineage.app.deps.database if service == "lineage" else plane.status.app.deps.database
    async with database.transaction(TENANT) as connection:
        for statement in statements:
            await connection.execute(sa.text(statement), parameters)


async def _forget(plane: ControlPlane, service: str) -> None:
    await _execute(plane, service, *(f"delete from {table}" for table in _KEPT[service]))  # noqa: S608 - constants


async def _select(plane: ControlPlane, statement: str, **parameters: str) -> Any:
    async with plane.lineage.app.deps.database.read(TENANT) as connection:
        return (await connection.execute(sa.text(statement), parameters)).scalar_one()


@pytest.fixture
async def world(postgres_server: Postgres, nats: NatsServer) -> AsyncIterator[World]:
    del postgres_server
    async with control_plane(nats.url) as plane:
        found = World(plane, nats)
        await found.create()
        yield found


async def test_events_that_the_broker_lost_unread_are_published_again(
    postgres_server: Postgres, nats: NatsServer
) -> None:
    del postgres_server
    async with instance_service(nats.url) as instances:
        project = (await instances.project()).project_id
        prices = await instances.prices(project, "prices")
        changed = await instances.update(prices.instance_id, {"name": "renamed"}, "name")
        doomed = await instances.prices(project, "doomed")
        await instances.instances.DeleteInstance(DeleteInstanceRequest(instance_id=doomed.instance_id))
        database = instances.app.deps.database

        async def is_published() -> bool:
            async with database.infra() as connection:
                return (await connection.exec_driver_sql("select from outbox limit 1")).first() is None

        await eventually(is_published)
        nats.lose_storage()
        async with lineage_service(nats.url) as lineage, status_service(nats.url) as status:
            flow = FlowRef(instance_id=prices.instance_id, flow_kind=FLOW_KIND_REFRESH)
            with pytest.raises(grpc.aio.AioRpcError):
                await lineage.stub.GetFlowState(GetFlowStateRequest(flow=flow))

            async def is_known() -> bool:
                await compare_now(nats.url, 60)
                try:
                    await lineage.stub.GetFlowState(GetFlowStateRequest(flow=flow))
                    request = GetInstanceStatusRequest(instance_id=prices.instance_id)
                    found = await status.stub.GetInstanceStatus(request)
                except grpc.aio.AioRpcError:
                    return False
                # The deletion waited for lineage-service, which had not heard of it.
                gone = await _is_gone(instances, doomed.instance_id)
                return gone and found.instance_name == changed.name

            await eventually(is_known, 60)


@pytest.mark.parametrize("losers", [("lineage", "status"), ("status",)])
async def test_a_service_that_lost_everything_gets_it_again(world: World, losers: tuple[str, ...]) -> None:
    before = await world.known()
    assert {"prices", "momentum", "flow of prices", "flow of momentum"} == before.keys()
    for service in losers:
        await _forget(world.plane, service)
    assert await world.known() != before
    await world.becomes(before)


async def test_a_deletion_that_was_lost_is_made_up_for(world: World) -> None:
    before = await world.known()
    gone = world.instances["gone"].instance_id
    await _execute(
        world.plane,
        "lineage",
        "update instances set is_deleted = false where instance_id = cast(:gone as uuid)",
        "update flows set is_defined = true where instance_id = cast(:gone as uuid)",
        gone=gone,
    )
    await _execute(
        world.plane,
        "status",
        "update instances set is_deleted = false where instance_id = cast(:gone as uuid)",
        gone=gone,
    )
    assert await world.known() != before
    await world.becomes(before)


async def test_a_lost_run_of_all_dates_is_found_among_later_range_runs(world: World) -> None:
    """The newest run of any kind is known: that its predecessor was is not said by its number."""
    await world.run("prices")
    await world.run("prices", parameters={"start": "2021-12-01"})
    await world.plane.rest()
    prices = world.instances["prices"].instance_id
    number = "select full_run_number from flows where instance_id = cast(:prices as uuid)"
    lose = "update flows set full_run_number = 1 where instance_id = cast(:prices as uuid)"
    assert await _select(world.plane, number, prices=prices) == 2
    await _execute(world.plane, "lineage", lose, prices=prices)

    async def is_known() -> bool:
        await compare_now(world.nats.url, 60)
        await world.plane.rest()
        return bool(await _select(world.plane, number, prices=prices) == 2)

    await eventually(is_known, 60)
    assert await compare_now(world.nats.url, 60) == 0


async def test_leftovers_of_a_tenant_without_instances_are_found(world: World) -> None:
    gone = world.instances["gone"].instance_id
    for name in ("momentum", "prices"):
        await world.delete(name)
    await world.plane.rest()
    assert await list_tenants(world.plane.instance.app.deps, []) == [TENANT]
    left = "update instances set is_deleted = false where instance_id = cast(:gone as uuid)"
    for service in ("lineage", "status"):
        await _execute(world.plane, service, left, gone=gone)
    assert await compare_now(world.nats.url, 60) > 0


async def test_events_on_their_way_are_not_asked_for(postgres_server: Postgres, nats: NatsServer) -> None:
    del postgres_server
    settings: dict[str, dict[str, Any]] = {
        "instance": {"comparison_interval_seconds": 0.05},
        "status": {"comparison_grace_seconds": 3600},
        "lineage": {"comparison_grace_seconds": 3600},
    }
    async with control_plane(nats.url, settings) as plane:
        world = World(plane, nats)
        await world.create()
        client = plane.run.nats
        asked = await client.subscribe("optaic-compare.*.instances.wanted")
        said = await client.subscribe("optaic-compare.*.instances.page")
        await client.flush()
        await _forget(plane, "status")
        for _ in range(5):
            await said.next_msg(20)
        assert asked.pending_msgs == 0


async def test_a_service_that_missed_nothing_asks_for_nothing(world: World) -> None:
    assert await compare_now(world.nats.url, 60) == 0
    prices = world.instances["prices"]
    config = {
        "pipeline": {"config": {"as_of": "2021-12-30"}}
    }  # of a component, which is told with the dataset
    await world.plane.instance.update(prices.instance_id, {"dataset": config}, "dataset.pipeline.config")
    await world.plane.rest()
    assert await compare_now(world.nats.url, 60) == 0


async def test_a_known_event_published_again_changes_nothing(world: World) -> None:
    before = await world.known()
    ids = [instance.instance_id for instance in world.instances.values()]
    flows = [FlowRef(instance_id=each, flow_kind=FLOW_KIND_REFRESH) for each in ids]
    for topic, message in (
        ("instances", InstancesWanted(instance_ids=[*ids, "nonsense"])),
        ("runs", RunsWanted(flows=flows)),
        ("flows", FlowsWanted(flows=flows)),
    ):
        for _ in range(2):
            subject = f"optaic-compare.default.{topic}.wanted"
            await world.plane.run.nats.publish(subject, message.SerializeToString())
    await world.plane.run.nats.flush()
    await compare_now(world.nats.url, 60)
    await world.plane.rest()
    assert await world.known() == before
    assert await world.plane.dead_letters() == []
    # Who knows all asks for nothing.
    assert await compare_now(world.nats.url, 60) == 0


async def test_the_services_compare_by_themselves(postgres_server: Postgres, nats: NatsServer) -> None:
    del postgres_server
    settings: dict[str, dict[str, Any]] = {
        "instance": {"comparison_interval_seconds": 0.2},
        "status": {"comparison_grace_seconds": 1},
        "lineage": {"comparison_grace_seconds": 1},
    }
    async with control_plane(nats.url, settings) as plane:
        world = World(plane, nats)
        await world.create()
        before = await world.known()
        await _forget(plane, "status")

        async def is_known() -> bool:
            return await world.known() == before

        await eventually(is_known, 60)
