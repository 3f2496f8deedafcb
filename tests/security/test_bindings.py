"""Bindings of roles: they confine an actor to projects, in every service, and a revocation works at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest
import pytest_asyncio
import sqlalchemy as sa
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.postgres import Postgres
from optaic.common.v1 import access_pb2
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH
from optaic.definition.v1 import definition_service_pb2 as definition_api
from optaic.instance.v1 import access_service_pb2 as access_api
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.run.v1 import run_service_pb2 as run_api
from optaic.status.v1 import status_service_pb2 as status_api
from servicekit.comparison import compare_now
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from support.broker import NatsAccounts
from support.confined import ACTOR, DENIED, ME, MISSING, Call, World, becomes, outcome
from support.control_plane import control_plane
from support.identities import caller
from support.instance_service import derived
from support.polling import eventually


@pytest_asyncio.fixture
async def world(postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[World]:
    del postgres_server
    settings = {
        service: {"access_check_seconds": 0.2} for service in ("instance", "run", "lineage", "status")
    }
    nats_url = nats_accounts.take()
    async with contextlib.AsyncExitStack() as stack:
        plane = await stack.enter_async_context(control_plane(nats_url, settings))
        address = plane.instance.app.server.address
        found = World(plane, await stack.enter_async_context(grpc.aio.insecure_channel(address)), nats_url)
        await found.prepare()
        for call in (found.status(found.other_instance), found.lineage(found.other_instance)):
            await becomes(call, "OK", 20)
        yield found


async def test_a_binding_confines_an_actor_to_its_project_in_every_service(world: World) -> None:
    instances, project = world.plane.instance.instances, world.mine
    request: Any
    await world.grant("viewer", project)
    for call in (world.get, world.status, world.lineage):
        await becomes(call(world.other_instance), MISSING)
        await becomes(call(world.my_instance), "OK")
    for instance_id in (world.my_instance, world.other_instance):
        assert await outcome(world.runs(instance_id)) == "OK"  # a list, which leaves out what is not readable
    assert await outcome(world.pause(world.my_instance)) == DENIED  # a viewer
    assert await outcome(world.pause(world.other_instance)) == DENIED  # wherever it is
    listed = await instances.ListProjects(instance_api.ListProjectsRequest(), metadata=ME)
    assert [each.project_id for each in listed.projects] == [project]
    for request, wanted in (
        (instance_api.GetProjectRequest(project_id=project), "OK"),
        (instance_api.GetProjectRequest(project_id=world.other), MISSING),
    ):
        found = await outcome(partial(instances.GetProject, request, metadata=ME))
        assert found == wanted
    listing: Any = instances.ListInstances
    for request, expected in (
        (instance_api.ListInstancesRequest(project_id=project), [world.my_instance]),
        (instance_api.ListInstancesRequest(project_id=world.other), []),
        (instance_api.ListInstancesRequest(project_id=world.other.upper()), []),
        (instance_api.ListInstancesRequest(), [world.my_instance]),
    ):
        page = await listing(request, metadata=ME)
        assert [each.instance_id for each in page.instances] == expected
    both = instance_api.BatchGetInstancesRequest(instance_ids=[world.my_instance, world.other_instance])
    assert await outcome(lambda: instances.BatchGetInstances(both, metadata=ME)) == MISSING
    listing = world.plane.status.stub.ListInstanceStatuses
    for request, expected in (
        (status_api.ListInstanceStatusesRequest(project_id=project), [world.my_instance]),
        (status_api.ListInstanceStatusesRequest(project_id=world.other), []),
        (status_api.ListInstanceStatusesRequest(), [world.my_instance]),
        (status_api.ListInstanceStatusesRequest(name_prefix=""), [world.my_instance]),
        (status_api.ListInstanceStatusesRequest(flow_kinds=[FLOW_KIND_REFRESH]), [world.my_instance]),
    ):
        request.with_counts = True
        page = await listing(request, metadata=ME)
        assert [each.instance_id for each in page.instance_statuses] == expected
        assert sum(each.instance_count for each in page.status_counts) == len(expected)
    now = Timestamp()
    now.GetCurrentTime()
    past = await listing(
        status_api.ListInstanceStatusesRequest(as_of_time=now, with_counts=True), metadata=ME
    )
    assert [each.instance_id for each in past.instance_statuses] == [world.my_instance]
    assert [each.instance_count for each in past.status_counts] == [1]
    two = [world.my_instance, world.other_instance]
    for request in (
        status_api.ListInstanceAvailabilityRequest(),
        status_api.ListInstanceAvailabilityRequest(instance_ids=two),
    ):
        shares = await world.plane.status.stub.ListInstanceAvailability(request, metadata=ME)
        assert [each.instance_id for each in shares.instance_availabilities] == [world.my_instance]
    for instance_id, expected_outcome in ((world.my_instance, "OK"), (world.other_instance, MISSING)):
        tokens = status_api.CreateRealtimeTokenRequest(instance_ids=[instance_id])
        create = world.plane.status.stub.CreateRealtimeToken
        assert await outcome(lambda: create(tokens, metadata=ME)) == expected_outcome  # noqa: B023 - called at once
    everything = definition_api.ListDefinitionsRequest()
    assert await outcome(lambda: world.definitions.ListDefinitions(everything, metadata=ME)) == "OK"
    # Nobody else is concerned.
    request = instance_api.GetInstanceRequest(instance_id=world.other_instance)
    await instances.GetInstance(request, metadata=caller("viewer"))


async def test_a_name_of_another_project_is_as_unknown_as_one_that_does_not_exist(world: World) -> None:
    instances = world.plane.instance.instances
    known = await instances.GetProject(instance_api.GetProjectRequest(project_id=world.other))
    await world.grant("viewer", world.mine)
    await becomes(world.get(world.other_instance), MISSING)
    reasons = []
    for name in (known.name, "nothing"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await instances.GetProject(instance_api.GetProjectRequest(name=name), metadata=ME)
        reasons.append(from_rpc_error(refused.value).reason)
    assert reasons == ["PROJECT_NOT_FOUND"] * 2


async def test_a_role_in_one_project_changes_nothing_in_another(world: World) -> None:
    instances = world.plane.instance.instances
    await world.grant("researcher", world.mine)
    await becomes(world.pause(world.other_instance), MISSING)
    assert await outcome(world.pause(world.my_instance)) == "OK"

    def create(project_id: str, upstream: str) -> Call:
        given = derived(project_id, f"signal-{new_id()}", upstream)
        instance = json_format.ParseDict(given, instance_pb2.Instance())
        request = instance_api.CreateInstanceRequest(instance=instance)
        return lambda: instances.CreateInstance(request, metadata=ME)

    assert await outcome(create(world.other, world.my_instance)) == MISSING
    assert await outcome(create(world.mine, world.other_instance)) == MISSING
    assert await outcome(create(world.mine, world.my_instance)) not in {DENIED, MISSING}
    await world.grant("viewer", world.other)
    await becomes(world.get(world.other_instance), "OK")
    assert await outcome(create(world.mine, world.other_instance)) != DENIED
    assert await outcome(world.pause(world.other_instance)) == DENIED
    moved = instance_api.UpdateInstanceRequest(
        instance=instance_pb2.Instance(instance_id=world.my_instance, project_id=world.other),
        update_mask=FieldMask(paths=["labels"]),
    )
    assert await outcome(lambda: instances.UpdateInstance(moved, metadata=ME)) == DENIED
    wide = instance_api.CreateProjectRequest(project=instance_pb2.Project(name="mine"))
    assert await outcome(lambda: instances.CreateProject(wide, metadata=ME)) == DENIED


async def test_a_revocation_works_within_seconds_everywhere_and_ends_streams(world: World) -> None:
    await world.grant("viewer")
    reads = [read(world.my_instance) for read in (world.get, world.status, world.lineage, world.runs)]
    for call in reads:
        await becomes(call, "OK")
    await becomes(world.pause(world.my_instance), DENIED)  # the binding has replaced the token's role
    stream = world.plane.status.stub.WatchInstanceStatuses(
        status_api.WatchInstanceStatusesRequest(), metadata=ME
    )
    await stream.read()
    began = time.monotonic()
    await world.revoke()
    for call in reads:
        await becomes(call, DENIED)
    assert time.monotonic() - began < 5
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await asyncio.wait_for(read_all(stream), 20)
    assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
    # The roles of the token do not come back.
    assert await outcome(world.pause(world.my_instance)) == DENIED


async def read_all(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


@pytest.mark.parametrize("is_wide", [True, False], ids=["in the tenant", "in the project"])
async def test_a_revocation_ends_each_stream_and_leaves_those_of_others_open(
    world: World, *, is_wide: bool
) -> None:
    """The promise of a minute holds for every interval of checks up to `OPTAIC_ACCESS_CHECK_SECONDS=60`; here it is 0.2."""
    scope = "" if is_wide else world.mine
    await world.grant("viewer", scope)
    await world.grant("viewer", scope, actor="maintainer")
    for call in (world.status(world.my_instance), world.runs(world.my_instance)):
        await becomes(call, "OK", 20)
    run = await world.plane.run.runs.SubmitRun(run_api.SubmitRunRequest(instance_id=world.my_instance))

    def open_all(metadata: Any) -> list[Any]:
        statuses, runs = world.plane.status.stub, world.plane.run.runs
        one = status_api.WatchInstanceStatusesRequest(instance_ids=[world.my_instance])
        return [
            statuses.WatchInstanceStatuses(status_api.WatchInstanceStatusesRequest(), metadata=metadata),
            statuses.WatchInstanceStatuses(one, metadata=metadata),
            runs.WatchRun(run_api.WatchRunRequest(run_id=run.run_id), metadata=metadata),
            runs.WatchRunLogs(run_api.WatchRunLogsRequest(run_id=run.run_id), metadata=metadata),
        ]

    async def is_readable() -> bool:
        read = run_api.GetRunRequest(run_id=run.run_id)
        await world.plane.run.runs.GetRun(read, metadata=ME)
        await world.plane.run.runs.GetRun(read, metadata=caller("maintainer"))
        return True

    await eventually(is_readable, 20)
    mine, others = open_all(ME), open_all(caller("maintainer"))
    for stream in (*mine, *others):
        await stream.read()
    await world.revoke(scope)
    async with asyncio.timeout(60):
        for stream in mine:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await read_all(stream)
            assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
    for stream in others:
        assert not stream.done()
        stream.cancel()


async def test_bindings_are_granted_listed_and_revoked_by_administrators_only(world: World) -> None:
    made = await world.grant("viewer", world.mine)
    again = await world.grant("viewer", world.mine)
    assert (again.revision, again.binding_id) == (1, made.binding_id)
    more = await world.grant("maintainer", world.mine)
    assert (more.revision, more.binding_id) == (2, made.binding_id)
    await world.grant("viewer", actor="ben")
    everything = access_api.ListRoleBindingsRequest()
    listed = (await world.access.ListRoleBindings(everything)).role_bindings
    assert [(each.actor, each.project_id) for each in listed] == [("ben", ""), (ACTOR, world.mine)]
    first = await world.access.ListRoleBindings(access_api.ListRoleBindingsRequest(page_size=1))
    rest = await world.access.ListRoleBindings(
        access_api.ListRoleBindingsRequest(page_token=first.next_page_token)
    )
    assert [*first.role_bindings, *rest.role_bindings] == list(listed)
    await world.revoke(world.mine)
    assert [each.actor for each in (await world.access.ListRoleBindings(everything)).role_bindings] == ["ben"]
    assert await outcome(lambda: world.revoke(world.mine)) == "NOT_FOUND"
    assert await outcome(lambda: world.grant("viewer", new_id())) == "NOT_FOUND"
    for role in ("admin", "executor", "service", "unspecified"):
        assert await outcome(partial(world.grant, role)) == "INVALID_ARGUMENT"
    request = access_api.GrantRoleRequest(actor=ACTOR, role=access_pb2.ROLE_MAINTAINER)
    for metadata in (caller("maintainer"), caller("executor"), ME):
        assert await outcome(partial(world.access.GrantRole, request, metadata=metadata)) == DENIED
    foreign = (
        await world.access.ListRoleBindings(everything, metadata=caller("admin", "other"))
    ).role_bindings
    assert list(foreign) == []


async def test_a_binding_that_a_service_has_lost_comes_back_by_comparison(world: World) -> None:
    await world.grant("viewer", world.mine)
    await becomes(world.status(world.other_instance), MISSING)
    database = world.plane.status.app.deps.database
    async with database.transaction("default") as connection:
        await connection.execute(sa.text("delete from role_bindings"))
    await becomes(world.status(world.other_instance), "OK")
    await compare_now(world.nats_url, 60)
    await becomes(world.status(world.other_instance), MISSING, 20)
