"""The data of instances that are gone: known for a grace, then given to a worker until it is said to be removed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest

from instance_service.resources import data_removals as stored_removals
from instance_service.use_cases.data_removals import reading, work
from instance_service.use_cases.dependencies import Dependencies
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH
from optaic.instance.v1.data_removal_service_pb2 import (
    ClaimDataRemovalRequest,
    DataRemoval,
    FinishDataRemovalRequest,
    ListDataRemovalsRequest,
)
from optaic.instance.v1.data_removal_service_pb2_grpc import DataRemovalServiceStub
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import DeleteInstanceRequest, GetInstanceRequest
from optaic.rules.data_removals import CLAIM
from optaic.run.v1.run_pb2 import Run
from servicekit.app import App
from servicekit.errors import NotFoundError
from support.clock import FakeClock
from support.identities import caller
from support.instance_service import TENANT, RunningInstanceService, refusal
from support.polling import eventually

WEEK = 7 * 86400.0
SERVICE = caller("executor")
OTHER = caller("viewer", "other")


class Removals:
    """The use cases, with a clock that stands still until a test moves it."""

    def __init__(self, app: App[Dependencies]) -> None:
        self.clock = FakeClock()
        self._deps: Dependencies = replace(app.deps, clock=self.clock, data_grace_seconds=WEEK)

    async def begin(self) -> DataRemoval:
        """Set the clock to when the only instance was gone, which the service has by the real one."""
        (known,) = await self.list()
        self.clock = FakeClock(known.delete_time.ToDatetime(tzinfo=UTC))
        self._deps = replace(self._deps, clock=self.clock)
        return known

    async def list(self) -> list[DataRemoval]:
        """Return all there are."""
        request = ListDataRemovalsRequest()
        found = await reading.list_data_removals(self._deps, TENANT, request)
        return list(found.data_removals)

    async def claim(self, tenant_id: str = TENANT) -> DataRemoval | None:
        """Take one."""
        answer = await work.claim_data_removal(self._deps, tenant_id)
        return answer.data_removal if answer.HasField("data_removal") else None

    async def finish(self, instance_id: str, problem: str = "") -> None:
        """Say what became of one."""
        request = FinishDataRemovalRequest(instance_id=instance_id, problem=problem)
        await work.finish_data_removal(self._deps, TENANT, request)


@pytest.fixture
def removals(service: RunningInstanceService) -> Removals:
    """The use cases of a running service."""
    return Removals(service.app)


async def gone(service: RunningInstanceService, *instances: Instance) -> None:
    """Delete instances, and wait until they are gone."""
    for instance in instances:
        await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=instance.instance_id))
        await service.clear_lineage(instance.instance_id)
    for instance in instances:

        async def look(instance_id: str = instance.instance_id) -> Any:
            request = GetInstanceRequest(instance_id=instance_id)
            try:
                await service.instances.GetInstance(request)
            except grpc.aio.AioRpcError as error:
                return error.code() == grpc.StatusCode.NOT_FOUND
            return False

        await eventually(look)


@asynccontextmanager
async def door(service: RunningInstanceService) -> AsyncIterator[DataRemovalServiceStub]:
    """A channel to the running service."""
    async with grpc.aio.insecure_channel(service.app.server.address) as channel:
        yield DataRemovalServiceStub(channel)


async def test_what_another_system_wrote_is_no_output_of_a_deleted_instance(
    service: RunningInstanceService, removals: Removals
) -> None:
    project = await service.project()
    external = {"definitionName": "external"}
    store = {**external, "config": {"url": "/exports/a.parquet"}}
    given = {
        "projectId": project.project_id,
        "name": "held",
        "dataset": {"pipeline": external, "store": store},
    }
    held = await service.create(given)
    await service.publish_run(Run(instance_id=held.instance_id, flow_kind=FLOW_KIND_REFRESH, run_number=1))

    async def is_known() -> bool:
        return (await service.row_counts("outputs"))["outputs"] == 1

    await eventually(is_known)
    await gone(service, held)
    (found,) = await removals.list()
    assert (found.instance_id, found.has_output) == (held.instance_id, False)


async def test_a_deleted_instance_is_recorded_with_every_store_that_it_had(
    service: RunningInstanceService, removals: Removals
) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    assert await removals.list() == []
    spec = {"dataset": {"store": {"definitionName": "parquet"}}}
    swapped = await service.update(
        prices.instance_id, spec, "dataset.store.definition_name", "dataset.store.definition_id"
    )
    await service.update(prices.instance_id, {"owner": "somebody"}, "owner")
    run = Run(instance_id=prices.instance_id, flow_kind=FLOW_KIND_REFRESH, run_number=1)
    await service.publish_run(run)

    async def is_known() -> bool:
        return (await service.row_counts("outputs"))["outputs"] == 1

    await eventually(is_known)
    await gone(service, prices)
    (found,) = await removals.list()
    assert (found.instance_id, found.name, found.kind) == (prices.instance_id, "sp500_prices", prices.kind)
    assert (found.project_id, found.has_output, found.attempts, found.problem) == (
        project.project_id, True, 0, ""
    )  # fmt: skip
    assert not found.stores  # what configurations say is not for everybody
    await removals.begin()
    removals.clock.advance(WEEK)
    claimed = await removals.claim()
    assert claimed is not None
    versions = [each.definition_version_id for each in claimed.stores]
    assert versions == [
        prices.dataset.store.definition_version_id, swapped.dataset.store.definition_version_id
    ]  # fmt: skip
    wait = found.remove_time.ToDatetime() - found.delete_time.ToDatetime()
    assert wait == timedelta(seconds=WEEK)


async def test_an_instance_with_countless_stores_does_not_outgrow_an_answer(
    service: RunningInstanceService, removals: Removals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_removals, "_MOST_BYTES", 200)
    prices = await service.prices((await service.project()).project_id)
    names = ["a" * 40, "b" * 40, "c" * 40, "a" * 40]
    for name in names:
        spec = {"dataset": {"store": {"config": {"keys": ["date", "entity", name]}}}}
        await service.update(prices.instance_id, spec, "dataset.store.config")
    await gone(service, prices)
    await removals.begin()
    removals.clock.advance(WEEK)
    claimed = await removals.claim()
    assert claimed is not None
    assert 0 < len(claimed.stores) < len(names)
    newest = claimed.stores[-1].config.fields["keys"].list_value.values[2]  # the newest are kept
    assert newest.string_value == names[-1]


async def test_data_is_removed_after_the_grace_and_once(
    service: RunningInstanceService, removals: Removals
) -> None:
    prices = await service.prices((await service.project()).project_id)
    await gone(service, prices)
    await removals.begin()
    assert await removals.claim() is None
    await removals.finish(prices.instance_id)  # nobody was asked to remove it
    removals.clock.advance(WEEK - 1)
    assert await removals.claim() is None
    removals.clock.advance(1)
    assert await removals.claim("other") is None
    claimed = await removals.claim()
    assert claimed is not None
    assert (claimed.instance_id, claimed.attempts) == (prices.instance_id, 1)
    assert await removals.claim() is None  # somebody has it
    removals.clock.advance(CLAIM.total_seconds())
    again = await removals.claim()  # who had it has died
    assert again is not None
    assert again.attempts == 2
    await removals.finish(prices.instance_id)
    assert await removals.list() == []
    await removals.finish(prices.instance_id)
    with pytest.raises(NotFoundError) as refused:
        await removals.finish(prices.instance_id, "late")
    assert refused.value.reason == "DATA_REMOVAL_NOT_FOUND"
    removals.clock.advance(WEEK)
    assert await removals.claim() is None


async def test_a_failed_removal_is_reported_and_retried_ever_more_slowly(
    service: RunningInstanceService, removals: Removals
) -> None:
    prices = await service.prices((await service.project()).project_id)
    await gone(service, prices)
    await removals.begin()
    removals.clock.advance(WEEK)
    for attempt, minutes in enumerate((1, 2, 4, 8), 1):
        assert await removals.claim() is not None
        await removals.finish(prices.instance_id, "the disk is away: https://ann:pa55word@disk")
        (found,) = await removals.list()
        assert found.attempts == attempt
        assert "the disk is away" in found.problem
        assert "pa55word" not in found.problem
        assert found.remove_time.ToDatetime(tzinfo=UTC) == removals.clock.now() + timedelta(minutes=minutes)
        removals.clock.advance(60 * minutes - 1)
        assert await removals.claim() is None
        removals.clock.advance(1)


async def test_only_services_are_given_data_to_remove(service: RunningInstanceService) -> None:
    prices = await service.prices((await service.project()).project_id)
    await gone(service, prices)
    finish = FinishDataRemovalRequest(instance_id=prices.instance_id)
    async with door(service) as stub:
        for call in (stub.ClaimDataRemoval(ClaimDataRemovalRequest()), stub.FinishDataRemoval(finish)):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (
                grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"
            )  # fmt: skip
        answer = await stub.ClaimDataRemoval(ClaimDataRemovalRequest(), metadata=SERVICE)
        assert not answer.HasField("data_removal")  # the grace
        (listed,) = (await stub.ListDataRemovals(ListDataRemovalsRequest())).data_removals
        assert listed.instance_id == prices.instance_id
        others = await stub.ListDataRemovals(ListDataRemovalsRequest(), metadata=OTHER)
        assert list(others.data_removals) == []


async def test_they_are_listed_page_by_page(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    made = [await service.prices(project_id, name) for name in ("a", "b", "c")]
    await gone(service, *made)
    found: list[str] = []
    token = "first"
    async with door(service) as stub:
        while token:
            request = ListDataRemovalsRequest(page_size=2, page_token=token if found else "")
            page = await stub.ListDataRemovals(request)
            found += [each.instance_id for each in page.data_removals]
            token = page.next_page_token
    assert sorted(found) == sorted(each.instance_id for each in made)
