"""What is kept of instances that are gone, and of statuses whose beginning is not known."""

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2, instance_pb2
from optaic.status.v1 import status_service_pb2 as api
from servicekit.ids import new_id
from status_service.use_cases.reading import locate
from support.status_service import (
    PROJECT,
    TENANT,
    RunningStatusService,
    flow_change,
    flow_statuses,
    instance,
)


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_deleted_instance_is_in_the_past_and_no_longer_in_the_present(
    service: RunningStatusService, *, is_known: bool
) -> None:
    """Also if its owner no longer knows what it was."""
    instance_id = new_id()
    news = instance(instance_id, revision=2) if is_known else instance_pb2.Instance(instance_id=instance_id)
    created = instance_events_pb2.InstanceCreated(instance=instance(instance_id))
    ready = flow_statuses(1, flow_change(instance_id, "READY", version=1))
    for event in (created, ready):
        await service.applied(*await service.publish(event))
    alive = datetime.now(UTC)
    deleted = instance_events_pb2.InstanceDeleted(instance=news)
    await service.applied(*await service.publish(deleted))
    for moment, expected in ((alive, ["prices"]), (datetime.now(UTC), [])):
        request = api.ListInstanceStatusesRequest(as_of_time=_stamp(moment))
        answer = await service.stub.ListInstanceStatuses(request)
        assert [each.instance_name for each in answer.instance_statuses] == expected
    history = await service.stub.GetStatusHistory(api.GetStatusHistoryRequest(instance_id=instance_id))
    assert [each.to_status for each in history.transitions] == [
        flow_pb2.STATUS_UNSPECIFIED,
        flow_pb2.STATUS_READY,
        flow_pb2.STATUS_NOT_INITIALIZED,
    ]
    assert not history.transitions[0].HasField("duration")
    shares = await service.stub.ListInstanceAvailability(api.ListInstanceAvailabilityRequest())
    assert not shares.instance_availabilities


async def test_a_deleted_instance_still_belongs_to_its_project(service: RunningStatusService) -> None:
    """So whoever may read the project may read the history."""
    instance_id, unknown = new_id(), new_id()
    created = instance_events_pb2.InstanceCreated(instance=instance(instance_id))
    deleted = [
        instance_events_pb2.InstanceDeleted(instance=instance_pb2.Instance(instance_id=each))
        for each in (instance_id, unknown)
    ]
    await service.applied(*await service.publish(created, *deleted))
    assert await locate(service.app.deps, TENANT, [instance_id, unknown]) == {instance_id: PROJECT}


async def test_since_when_a_status_holds_is_not_guessed(service: RunningStatusService) -> None:
    instance_id = new_id()
    created = instance_events_pb2.InstanceCreated(instance=instance(instance_id))
    ready = flow_statuses(1, flow_change(instance_id, "READY", version=1))
    await service.applied(*await service.publish(created, ready))
    async with service.app.deps.database.transaction(TENANT) as connection:
        await connection.execute(sa.text("update instance_statuses set since_time = null"))
        await connection.execute(sa.text("delete from status_history"))

    async def is_known() -> bool:
        request = api.GetInstanceStatusRequest(instance_id=instance_id)
        return bool((await service.stub.GetInstanceStatus(request)).HasField("status_since_time"))

    for number, (status, expected) in enumerate((("READY", False), ("STALE", True)), start=2):
        change = flow_statuses(number, flow_change(instance_id, status, version=number))
        await service.applied(*await service.publish(change))
        assert await is_known() is expected


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_deleted_instance_is_found_in_the_past_by_every_filter(
    service: RunningStatusService, *, is_told: bool
) -> None:
    """The news of a deletion tells what the instance was, or only that it is gone, if no other news has arrived."""
    shown = instance(new_id())
    shown.owner = "ann"
    shown.labels["desk"] = "equity"
    created = instance_events_pb2.InstanceCreated(instance=shown)
    other = instance_events_pb2.InstanceCreated(instance=instance(new_id(), "other"))
    await service.applied(*await service.publish(created, other))
    alive = _stamp(datetime.now(UTC))
    gone = instance_pb2.Instance(instance_id=shown.instance_id)
    if is_told:
        shown.revision = 2
        shown.labels["desk"] = "rates"
        gone = shown
    await service.applied(*await service.publish(instance_events_pb2.InstanceDeleted(instance=gone)))
    filters: list[dict[str, Any]] = [
        {"labels": {"desk": "rates" if is_told else "equity"}},
        {"owner": "ann"},
        {"name": "prices"},
        {"project_id": shown.project_id, "name_prefix": "pri"},
        {"kinds": [shown.kind], "owner": "ann"},
        {"flow_kinds": [shown.flows[0].flow_kind], "owner": "ann"},
    ]
    for each in filters:
        past = api.ListInstanceStatusesRequest(as_of_time=alive, with_counts=True, **each)
        answer = await service.stub.ListInstanceStatuses(past)
        assert [status.instance_name for status in answer.instance_statuses] == ["prices"], each
        assert [counted.instance_count for counted in answer.status_counts] == [1], each
        present = await service.stub.ListInstanceStatuses(api.ListInstanceStatusesRequest(**each))
        assert not present.instance_statuses, each
    before = api.ListInstanceStatusesRequest(as_of_time=alive, labels={"desk": "moved"})
    assert not (await service.stub.ListInstanceStatuses(before)).instance_statuses
