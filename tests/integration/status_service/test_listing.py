"""Lists of statuses: each filter, counts, pages, and what an upgraded state lacks at first."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2, instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.status.v1 import status_service_pb2 as api
from servicekit.context import RequestContext, Scopes
from servicekit.ids import new_id
from status_service.use_cases import comparison, list_reading
from support.status_service import (
    PROJECT,
    TENANT,
    RunningStatusService,
    flow_change,
    flow_statuses,
    instance,
)

OTHER = "01900000-0000-7000-8000-000000000002"
# Name, kind, flows, their status and causes, project, owner and labels of each instance.
_WORLD: tuple[tuple[Any, ...], ...] = (
    ("eod_prices", "DATASET", ("REFRESH",), "READY", (), PROJECT, "ann", {"desk": "equity"}),
    ("eod_volumes", "DATASET", ("REFRESH",), "STALE", ("OVERDUE",), PROJECT, "bob", {"desk": "equity", "tier": "1"}),
    ("Eod_rates", "DATASET", ("REFRESH", "MONITORING"), "READY", (), OTHER, "ann", {"desk": "rates"}),
    ("momentum", "SIGNAL", ("REFRESH",), "STALE", ("OWN_CONFIG", "UPSTREAM_MOVED"), PROJECT, "ann", {}),
    ("ranker", "MODEL", ("TRAINING", "INFERENCE"), "ERROR", (), OTHER, "", {"desk": "equity"}),
    ("fresh", "DATASET", (), "NOT_INITIALIZED", (), PROJECT, "bob", {}),
)  # fmt: skip
_NAMES = {name for name, *_ in _WORLD}


@pytest.fixture
async def ids(service: RunningStatusService) -> dict[str, str]:
    """The instances of the world, by name."""
    found: dict[str, str] = {}
    events: list[Message] = []
    for name, _, flows, status, causes, *_ in _WORLD:
        found[name] = new_id()
        events.append(instance_events_pb2.InstanceCreated(instance=_world_message(name, found)))
        words = [lineage_pb2.Cause(kind=lineage_pb2.CauseKind.Value(f"CAUSE_KIND_{each}")) for each in causes]
        changes = [flow_change(found[name], status, flow_kind=flow, version=1) for flow in flows]
        for change in changes:
            change.cause_indexes.extend(range(len(words)))
        events.append(flow_statuses(1, *changes, causes=words))
    await service.applied(*await service.publish(*events))
    return found


async def _names(service: RunningStatusService, **filters: Any) -> set[str]:
    request = api.ListInstanceStatusesRequest(**filters)
    answer = await service.stub.ListInstanceStatuses(request)
    names = {each.instance_name for each in answer.instance_statuses}
    # Read page by page it is the same.
    paged, request.page_size = set(), 1
    while True:
        page = await service.stub.ListInstanceStatuses(request)
        paged |= {each.instance_name for each in page.instance_statuses}
        request.page_token = page.next_page_token
        if not request.page_token:
            assert paged == names
            return names


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, _NAMES),
        ({"statuses": ["STATUS_STALE", "STATUS_ERROR"]}, {"eod_volumes", "momentum", "ranker"}),
        ({"cause_kinds": ["CAUSE_KIND_OVERDUE"]}, {"eod_volumes"}),
        ({"cause_kinds": ["CAUSE_KIND_OVERDUE", "CAUSE_KIND_OWN_CONFIG"]}, {"eod_volumes", "momentum"}),
        ({"cause_kinds": ["CAUSE_KIND_INVALIDATED"]}, set()),
        ({"flow_kinds": ["FLOW_KIND_MONITORING", "FLOW_KIND_TRAINING"]}, {"Eod_rates", "ranker"}),
        ({"kinds": ["INSTANCE_KIND_MODEL"], "flow_kinds": ["FLOW_KIND_REFRESH"]}, set()),
        ({"labels": {"desk": "equity"}}, {"eod_prices", "eod_volumes", "ranker"}),
        ({"labels": {"desk": "equity", "tier": "1"}}, {"eod_volumes"}),
        ({"labels": {"desk": "equity"}, "statuses": ["STATUS_ERROR"]}, {"ranker"}),
        ({"labels": {"deskequity": ""}}, set()),
        ({"owner": "ann"}, {"eod_prices", "Eod_rates", "momentum"}),
        ({"owner": "ann", "project_id": PROJECT}, {"eod_prices", "momentum"}),
        ({"name": "momentum"}, {"momentum"}),
        ({"name": "momen"}, set()),
        ({"name_prefix": "eod_"}, {"eod_prices", "eod_volumes"}),
        ({"name_prefix": "eod_%"}, set()),
        ({"name_prefix": "eod_", "owner": "bob", "labels": {"tier": "1"}}, {"eod_volumes"}),
    ],
)
async def test_each_filter_selects_what_it_says(
    service: RunningStatusService, ids: Mapping[str, str], filters: dict[str, Any], expected: set[str]
) -> None:
    assert set(ids) == _NAMES
    assert await _names(service, **filters) == expected


async def test_counts_are_by_status_of_all_that_the_other_filters_apply_to(
    service: RunningStatusService, ids: Mapping[str, str]
) -> None:
    del ids

    async def counts(**filters: Any) -> dict[str, int]:
        request = api.ListInstanceStatusesRequest(with_counts=True, page_size=1, **filters)
        answer = await service.stub.ListInstanceStatuses(request)
        return {flow_pb2.Status.Name(each.status)[7:]: each.instance_count for each in answer.status_counts}

    everything = {"ERROR": 1, "STALE": 2, "NOT_INITIALIZED": 1, "READY": 2}
    assert await counts() == everything
    assert list(await counts()) == list(everything)
    assert await counts(statuses=["STATUS_READY"]) == everything
    assert await counts(owner="ann") == {"STALE": 1, "READY": 2}
    assert await counts(labels={"desk": "equity"}, project_id=PROJECT) == {"STALE": 1, "READY": 1}
    assert await counts(owner="nobody") == {}
    without = await service.stub.ListInstanceStatuses(api.ListInstanceStatusesRequest())
    assert not without.status_counts


async def test_a_page_token_belongs_to_its_filters(
    service: RunningStatusService, ids: Mapping[str, str]
) -> None:
    del ids
    request = api.ListInstanceStatusesRequest(page_size=1, name_prefix="e")
    page = await service.stub.ListInstanceStatuses(request)
    assert page.next_page_token
    for other in ({"name_prefix": "m"}, {"owner": "ann"}, {"labels": {"a": "b"}}, {"name": "e"}):
        wrong = api.ListInstanceStatusesRequest(page_size=1, page_token=page.next_page_token, **other)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.stub.ListInstanceStatuses(wrong)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_status_counts_from_when_it_began_whatever_else_changes(
    service: RunningStatusService, ids: Mapping[str, str]
) -> None:
    async def since(name: str) -> datetime:
        request = api.GetInstanceStatusRequest(instance_id=ids[name])
        found = await service.stub.GetInstanceStatus(request)
        return found.status_since_time.ToDatetime(UTC)  # type: ignore[no-any-return]  # generated

    began = await since("eod_prices")
    again = flow_statuses(5, flow_change(ids["eod_prices"], "READY", version=2))
    await service.applied(*await service.publish(again))
    assert await since("eod_prices") == began
    stale = flow_statuses(6, flow_change(ids["eod_prices"], "STALE", version=2))
    await service.applied(*await service.publish(stale))
    changed = await since("eod_prices")
    assert changed > began
    moment, before = Timestamp(), Timestamp()
    moment.FromDatetime(changed)
    before.FromDatetime(changed - timedelta(microseconds=1))
    assert await _names(service, changed_since_time=moment) == {"eod_prices"}
    assert await _names(service, unchanged_since_time=moment) == _NAMES
    assert await _names(service, unchanged_since_time=before) == _NAMES - {"eod_prices"}
    both = {"unchanged_since_time": moment, "statuses": ["STATUS_STALE"]}
    assert await _names(service, **both) == {"eod_prices", "eod_volumes", "momentum"}


async def test_owner_and_labels_follow_the_instance_and_change_no_status(
    service: RunningStatusService, ids: Mapping[str, str]
) -> None:
    async def revision() -> int:
        request = api.GetInstanceStatusRequest(instance_id=ids["momentum"])
        return int((await service.stub.GetInstanceStatus(request)).revision)

    before = await revision()
    await service.applied(*await service.publish(_updated(ids["momentum"], 2, owner="cid")))
    assert await _names(service, owner="cid") == {"momentum"}
    assert await _names(service, labels={"desk": "moved"}) == {"momentum"}
    assert await revision() == before
    deleted = instance_events_pb2.InstanceDeleted(instance=_message(ids["momentum"], 3, owner="cid"))
    await service.applied(*await service.publish(deleted))
    assert await _names(service, labels={"desk": "moved"}) == set()


async def test_a_state_of_an_earlier_release_fills_itself_without_a_change(
    service: RunningStatusService, ids: Mapping[str, str]
) -> None:
    database = service.app.deps.database
    momentum = ids["momentum"]
    everything = await service.stub.ListInstanceStatuses(api.ListInstanceStatusesRequest())
    async with database.transaction(TENANT) as connection:
        for statement in (
            "update instances set owner = null",
            "delete from instance_labels",
            "update instance_statuses set since_time = null, cause_kinds = null",
            "update status_changes set since_time = null",
        ):
            await connection.execute(sa.text(statement))
    assert await _names(service, owner="ann") == set()
    await _assert_incomplete(service, is_incomplete=True)
    start = _message(momentum, 1, owner="ann").update_time.ToDatetime(UTC)
    listed = dict.fromkeys(ids.values(), (1, start))
    assert set(await comparison.list_wanted_instances(service.app.deps, TENANT, "", "", listed)) == set(
        ids.values()
    )
    await service.applied(*await service.publish(_updated(momentum, 1, owner="ann")))
    wanted = await comparison.list_wanted_instances(service.app.deps, TENANT, "", "", listed)
    assert set(wanted) == set(ids.values()) - {momentum}
    assert await _names(service, owner="ann") == {"momentum"}
    assert await _names(service, labels={"desk": "moved"}) == {"momentum"}
    assert await _names(service, cause_kinds=["CAUSE_KIND_OWN_CONFIG"]) == {"momentum"}
    request = api.GetInstanceStatusRequest(instance_id=momentum)
    before = next(each for each in everything.instance_statuses if each.instance_id == momentum)
    assert await service.stub.GetInstanceStatus(request) == before
    await _assert_incomplete(service, is_incomplete=True)
    others = [_world_message(name, ids) for name in ids if name != "momentum"]
    await service.applied(
        *await service.publish(*(instance_events_pb2.InstanceUpdated(instance=each) for each in others))
    )
    await _assert_incomplete(service, is_incomplete=False)


async def test_a_list_is_incomplete_only_if_what_it_asks_for_may_be_missing_where_it_looks(
    service: RunningStatusService, ids: Mapping[str, str]
) -> None:
    await _assert_incomplete(service, is_incomplete=False)

    async def update(statement: str) -> None:
        async with service.app.deps.database.transaction(TENANT) as connection:
            await connection.execute(sa.text(statement), {"id": ids["ranker"]})

    async def is_incomplete(**filters: Any) -> bool:
        answer = await service.stub.ListInstanceStatuses(api.ListInstanceStatusesRequest(**filters))
        return bool(answer.is_incomplete)

    now = Timestamp()
    now.GetCurrentTime()
    await update("update instances set owner = null where instance_id = :id")
    assert await is_incomplete(owner="ann", project_id=OTHER)
    assert not await is_incomplete(owner="ann", project_id=PROJECT)
    assert not await is_incomplete(name="ranker")
    assert await is_incomplete(owner="ann", as_of_time=now)
    assert not await is_incomplete(unchanged_since_time=now, as_of_time=now)
    context = RequestContext(
        TENANT, "ann", "1", "", scopes=Scopes(frozenset({PROJECT}), frozenset({PROJECT}))
    )
    confined = await list_reading.list_instance_statuses(
        service.app.deps, context, api.ListInstanceStatusesRequest(owner="ann")
    )
    assert not confined.is_incomplete
    await update("update instances set is_deleted = true where instance_id = :id")
    assert not await is_incomplete(owner="ann")
    await update("update instance_statuses set since_time = null where instance_id = :id")
    assert await is_incomplete(unchanged_since_time=now)
    assert not await is_incomplete(owner="ann", cause_kinds=["CAUSE_KIND_OVERDUE"])


async def _assert_incomplete(service: RunningStatusService, *, is_incomplete: bool) -> None:
    now = Timestamp()
    now.GetCurrentTime()
    filters: tuple[dict[str, Any], ...] = (
        {"owner": "ann"},
        {"labels": {"desk": "equity"}},
        {"cause_kinds": ["CAUSE_KIND_OVERDUE"]},
        {"unchanged_since_time": now},
        {"changed_since_time": now},
    )
    for each in filters:
        answer = await service.stub.ListInstanceStatuses(api.ListInstanceStatusesRequest(**each))
        assert answer.is_incomplete is is_incomplete, each
    answer = await service.stub.ListInstanceStatuses(api.ListInstanceStatusesRequest(name="x"))
    assert not answer.is_incomplete


def _world_message(name: str, ids: Mapping[str, str]) -> instance_pb2.Instance:
    _, kind, flows, _, _, project, owner, labels = next(each for each in _WORLD if each[0] == name)
    message = instance(ids[name], name, kind=kind, flow_kinds=flows, project_id=project)
    message.owner = owner
    message.labels.update(labels)
    return message


def _message(instance_id: str, revision: int, *, owner: str) -> instance_pb2.Instance:
    message = instance(instance_id, "momentum", revision=revision, kind="SIGNAL")
    message.owner = owner
    message.labels["desk"] = "moved"
    return message


def _updated(instance_id: str, revision: int, *, owner: str) -> instance_events_pb2.InstanceUpdated:
    return instance_events_pb2.InstanceUpdated(instance=_message(instance_id, revision, owner=owner))
