"""Pausing, deleting, and keeping deployments as they should be."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import grpc
import sqlalchemy as sa

from instance_service.resources.deletions import remove_finalizer
from instance_service.store import instances as store
from instance_service.store import queue
from optaic.instance.v1 import instance_events_pb2
from optaic.instance.v1.instance_pb2 import (
    INSTANCE_STATE_ACTIVE,
    INSTANCE_STATE_DEGRADED,
    INSTANCE_STATE_DELETING,
    INSTANCE_STATE_PAUSED,
    Condition,
    Instance,
)
from optaic.instance.v1.instance_service_pb2 import (
    DeleteInstanceRequest,
    GetInstanceRequest,
    PauseInstanceRequest,
    ResumeInstanceRequest,
)
from support.broker import listen
from support.instance_service import TENANT, RunningInstanceService, refusal
from support.polling import eventually


async def _is_gone(service: RunningInstanceService, instance_id: str) -> Any:
    request = GetInstanceRequest(instance_id=instance_id)
    try:
        await service.instances.GetInstance(request)
    except grpc.aio.AioRpcError as error:
        return error.code() == grpc.StatusCode.NOT_FOUND
    return False


def _condition(instance: Instance, kind: str) -> Condition:
    """Return the condition of a type; an empty one where there is none."""
    return next((condition for condition in instance.conditions if condition.type == kind), Condition())


async def test_pausing_pauses_the_deployment_and_resuming_resumes_it(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    name = prices.flows[0].prefect_deployment_name
    request = PauseInstanceRequest(instance_id=prices.instance_id, reason="quarter end")
    paused = await service.instances.PauseInstance(request)
    assert (paused.state, paused.revision) == (INSTANCE_STATE_PAUSED, 2)
    assert await service.instances.PauseInstance(request) == paused
    await eventually(lambda: service.deployments.stored[name][1].is_paused)
    resumed = await service.instances.ResumeInstance(ResumeInstanceRequest(instance_id=prices.instance_id))
    assert resumed.revision == 3
    await service.until_active(prices.instance_id)
    assert not service.deployments.stored[name][1].is_paused


async def test_deletion_waits_for_its_finalizers(service: RunningInstanceService) -> None:
    project = await service.project()
    empty = await service.row_counts()
    prices = await service.prices(project.project_id)
    service.deployments.break_down()
    request = DeleteInstanceRequest(instance_id=prices.instance_id)
    deleting = await service.instances.DeleteInstance(request)
    assert deleting.state == INSTANCE_STATE_DELETING
    assert (await service.instances.DeleteInstance(request)).state == INSTANCE_STATE_DELETING
    change = await refusal(service.update(prices.instance_id, {"owner": "x"}, "owner"))
    assert (change.code, change.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INSTANCE_DELETING")
    upstream = await refusal(service.derived(project.project_id, "d", prices.instance_id))
    assert upstream.reason == "UPSTREAM_NOT_FOUND"

    await service.clear_lineage(prices.instance_id)
    await service.until(
        prices.instance_id,
        lambda found: _condition(found, "PrefectDeploymentReady").reason == "PrefectUnavailable",
    )
    assert service.deployments.stored
    service.deployments.recover()
    await eventually(lambda: _is_gone(service, prices.instance_id))
    assert not service.deployments.stored
    assert await service.row_counts() == empty


async def test_lineage_may_be_cleared_last(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    service.deployments.break_down()
    await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=prices.instance_id))
    stuck = await service.until(
        prices.instance_id, lambda found: _condition(found, "PrefectDeploymentReady").reason
    )
    assert _condition(stuck, "Deleting").message == "waits for: deployments, lineage"
    service.deployments.recover()
    await eventually(lambda: not service.deployments.stored)
    left = await service.until(prices.instance_id, lambda found: len(found.conditions) == 1)
    assert _condition(left, "Deleting").message == "waits for: lineage"
    assert not await _is_gone(service, prices.instance_id)
    await service.clear_lineage(prices.instance_id)
    await eventually(lambda: _is_gone(service, prices.instance_id))


async def test_an_instance_with_dependants_is_not_deleted(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    one = await service.derived(project.project_id, "one", prices.instance_id)
    await service.signal(project.project_id, "two", prices.instance_id)
    request = DeleteInstanceRequest(instance_id=prices.instance_id)
    refused = await refusal(service.instances.DeleteInstance(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HAS_DEPENDANTS")
    assert refused.preconditions == [("HAS_DEPENDANTS", "one"), ("HAS_DEPENDANTS", "two")]
    component = DeleteInstanceRequest(instance_id=one.dataset.store_instance_id)
    owned = await refusal(service.instances.DeleteInstance(component))
    assert owned.preconditions == [("HAS_DEPENDANTS", "one")]


async def test_a_cascade_deletes_dependants_first(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    empty = await service.row_counts()
    prices = await service.prices(project_id)
    one = await service.derived(project_id, "one", prices.instance_id)
    two = await service.signal(project_id, "two", prices.instance_id, one.instance_id)
    test = await service.create(
        {"projectId": project_id, "name": "test", "backtest": {"signals": {"primary": two.instance_id}},
         "upstreamRefs": [{"resourceId": prices.instance_id, "role": "prices"}]}
    )  # fmt: skip
    made = [prices, one, two, test]
    before = await service.row_counts()
    request = DeleteInstanceRequest(instance_id=prices.instance_id, cascade=True, validate_only=True)
    dry = await service.instances.DeleteInstance(request)
    assert dry.state == INSTANCE_STATE_DELETING
    assert await service.row_counts() == before
    subscription = await listen(service.nats, "optaic.*.instance.v1.*.*")
    request.validate_only = False
    request.request_id = "once"
    deleting = await service.instances.DeleteInstance(request)
    assert await service.instances.DeleteInstance(request) == deleting
    (condition,) = deleting.conditions
    assert (condition.type, condition.message.partition(",")[0]) == ("Deleting", "waits for: dependants")
    await eventually(lambda: not service.deployments.stored)
    for instance in (prices, one, two):
        await service.clear_lineage(instance.instance_id)
    last = await service.until(
        prices.instance_id, lambda found: _condition(found, "Deleting").message == "waits for: dependants"
    )
    assert _condition(last, "Deleting").since_time == condition.since_time
    assert await _is_gone(service, test.instance_id) is False
    await service.clear_lineage(test.instance_id)
    await eventually(lambda: _is_gone(service, prices.instance_id))
    assert await service.row_counts() == {**empty, "request_replies": empty["request_replies"] + 1}
    said: list[tuple[str, str]] = []
    while len(said) < 2 * len(made):
        *_, what, instance_id = (await subscription.next_msg(timeout=5)).subject.split(".")
        said.append((what, instance_id))
    order = [test.instance_id, two.instance_id, one.instance_id, prices.instance_id]
    for what in ("deletion_requested", "deleted"):
        assert [instance_id for kind, instance_id in said if kind == what] == order


async def test_an_instance_is_deleted_after_its_dependant_that_is_being_deleted(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id)
    one = await service.derived(project_id, "one", prices.instance_id)
    for instance in (one, prices):
        await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=instance.instance_id))
    again = await service.prices(project_id)  # its name is free at once
    assert again.instance_id != prices.instance_id
    await service.clear_lineage(prices.instance_id)
    await service.until(
        prices.instance_id, lambda found: _condition(found, "Deleting").message == "waits for: dependants"
    )
    await service.clear_lineage(one.instance_id)
    await eventually(lambda: _is_gone(service, prices.instance_id))


async def _goes_on_beside_a_verdict(
    service: RunningInstanceService, first: str, second: str, change: Coroutine[Any, Any, Any]
) -> None:
    """Fail where a change gets into a deadlock with who locks instances in the order of ids."""
    database = service.app.deps.database

    async def is_blocked() -> bool:
        async with database.read(TENANT) as connection:
            found = await connection.execute(
                sa.text("select from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0")
            )
            return found.first() is not None

    async with database.transaction(TENANT) as connection:
        await store.lock_instances(connection, TENANT, [first])
        changing = asyncio.create_task(change)
        await eventually(is_blocked)
        await store.lock_instances(connection, TENANT, [second])
    await changing


async def test_a_cascade_and_verdicts_on_many_get_along(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id)
    one = await service.derived(project_id, "one", prices.instance_id)
    two = await service.prices(project_id, "two")
    for each in (one, two):
        await service.until_active(each.instance_id)
    await service.update(
        one.instance_id,
        {"upstreamRefs": [{"resourceId": two.instance_id, "role": "input"}]},
        "upstream_refs",
    )
    await eventually(lambda: _is_settled(service, one.instance_id))
    assert one.instance_id < two.instance_id
    request = DeleteInstanceRequest(instance_id=two.instance_id, cascade=True, validate_only=True)

    async def delete() -> None:
        await service.instances.DeleteInstance(request)

    await _goes_on_beside_a_verdict(service, one.instance_id, two.instance_id, delete())


async def test_finalizers_and_verdicts_on_many_get_along(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    made = [await service.prices(project_id, name) for name in ("one", "two")]
    ids = [each.instance_id for each in made]
    service.deployments.break_down()
    for instance_id in reversed(ids):  # in which order the rows lie then
        await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=instance_id))
        await service.until(
            instance_id,
            lambda found: _condition(found, "PrefectDeploymentReady").reason == "PrefectUnavailable",
        )
    environment = service.app.deps

    async def finish() -> None:
        async with environment.database.transaction(TENANT) as connection:
            # As the planner may decide at any time.
            await connection.execute(sa.text("set local enable_indexscan = off"))
            await connection.execute(sa.text("set local enable_bitmapscan = off"))
            await remove_finalizer(environment, connection, TENANT, ids, "nothing")

    await _goes_on_beside_a_verdict(service, ids[0], ids[1], finish())


async def _is_settled(service: RunningInstanceService, instance_id: str) -> bool:
    async with service.app.deps.database.read(TENANT) as connection:
        return await queue.is_settled(connection, TENANT, instance_id)


async def test_a_deletion_with_a_stale_etag_is_refused(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id)
    request = DeleteInstanceRequest(instance_id=prices.instance_id, etag="r9", cascade=True)
    assert (await refusal(service.instances.DeleteInstance(request))).reason == "ETAG_MISMATCH"
    active = await service.until_active(prices.instance_id)
    assert not active.conditions


async def test_drift_is_repaired_and_orphans_are_removed(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    name = prices.flows[0].prefect_deployment_name
    stored = service.deployments.stored
    desired = stored[name][1]
    del stored[name]
    await eventually(lambda: name in stored and stored[name][1] == desired)
    again = await service.until(
        prices.instance_id,
        lambda found: found.flows[0].prefect_deployment_id == stored[name][0],
    )
    assert (again.state, again.revision) == (INSTANCE_STATE_ACTIVE, 1)
    service.deployments.edit(name, is_paused=True, parameters=())
    await eventually(lambda: stored[name][1] == desired)
    nobody = "default.01900000-0000-7000-8000-000000000001.refresh"
    unmarked = "default.01900000-0000-7000-8000-000000000002.refresh"
    stored[unmarked] = ("x", replace(desired, name=unmarked, tags=("optaic",)))
    for stranger in (nobody, "somebody-elses"):
        stored[stranger] = ("x", replace(desired, name=stranger))
    await eventually(lambda: nobody not in stored)
    assert {"somebody-elses", unmarked} < set(stored)


async def test_a_change_while_prefect_is_down_degrades_until_it_returns(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    service.deployments.break_down()
    await service.update(prices.instance_id, {"schedule": {"interval": {"minutes": 15}}}, "schedule")
    degraded = await service.until(prices.instance_id, lambda found: found.state == INSTANCE_STATE_DEGRADED)
    assert degraded.conditions[0].reason == "PrefectUnavailable"
    service.deployments.recover()
    active = await service.until_active(prices.instance_id)
    assert not active.conditions
    (timing,) = service.deployments.stored[prices.flows[0].prefect_deployment_name][1].timings
    assert timing.interval_seconds == 900


async def test_every_change_is_published_in_order(service: RunningInstanceService) -> None:
    jetstream = service.nats.jetstream()
    project = await service.project()
    prices = await service.prices(project.project_id)
    await service.update(prices.instance_id, {"owner": "ada"}, "owner", reason="handover")
    await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=prices.instance_id))
    await service.clear_lineage(prices.instance_id)
    await eventually(lambda: _is_gone(service, prices.instance_id))
    subject = "optaic.default.instance.v1.*." + prices.instance_id

    async def published() -> Any:
        info = await jetstream.stream_info("INSTANCE_EVENTS", subjects_filter=subject)
        return info if info.state.subjects and len(info.state.subjects) == 5 else None

    await eventually(published)
    subscription = await jetstream.subscribe(subject, ordered_consumer=True)
    messages = [await subscription.next_msg(timeout=5) for _ in range(5)]
    kinds = [(message.headers or {})["ce-type"].rpartition(".")[2] for message in messages]
    assert kinds == [
        "InstanceCreated", "InstanceActivated", "InstanceUpdated", "InstanceDeletionRequested", "InstanceDeleted",
    ]  # fmt: skip
    updated = instance_events_pb2.InstanceUpdated.FromString(messages[2].data)
    assert (updated.author, updated.reason, updated.instance.revision) == ("developer", "handover", 2)
