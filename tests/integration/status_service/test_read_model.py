"""What callers read after events came in: over a real channel, from a real database and broker."""

import asyncio

import grpc
import pytest
from google.protobuf.message import Message

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2, instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.status.v1 import status_events_pb2, status_pb2
from optaic.status.v1 import status_service_pb2 as api
from servicekit.ids import new_id
from support.broker import listen
from support.identities import caller
from support.polling import eventually
from support.status_service import (
    PROJECT,
    TENANT,
    RunningStatusService,
    error_info,
    flow_change,
    flow_statuses,
    flow_wait_changed,
    instance,
)


def _created(instance_id: str, name: str = "prices", **fields: object) -> instance_events_pb2.InstanceCreated:
    return instance_events_pb2.InstanceCreated(instance=instance(instance_id, name, **fields))  # type: ignore[arg-type]  # passed on


async def _status(service: RunningStatusService, instance_id: str) -> status_pb2.InstanceStatus:
    status: status_pb2.InstanceStatus = await service.stub.GetInstanceStatus(
        api.GetInstanceStatusRequest(instance_id=instance_id)
    )
    return status


async def test_a_status_shows_what_a_scheduled_time_waits_for_until_it_waits_no_more(
    service: RunningStatusService,
) -> None:
    instance_id = new_id()
    waits = flow_wait_changed(instance_id, 1, ["prices", "volumes"])
    # Whichever comes first, and however often.
    events = await service.publish(waits, _created(instance_id), waits)
    await service.applied(*events)
    before = await _status(service, instance_id)
    assert before.status == flow_pb2.STATUS_NOT_INITIALIZED
    assert [each.instance_name for each in before.flows[0].waiting_for.flows] == ["prices", "volumes"]
    await service.applied(*await service.publish(flow_wait_changed(instance_id, 2, []), waits))
    after = await _status(service, instance_id)
    assert not after.flows[0].HasField("waiting_for")
    history = await service.stub.GetStatusHistory(api.GetStatusHistoryRequest(instance_id=instance_id))
    assert len(history.transitions) == 1
    deleted = instance_events_pb2.InstanceDeleted(instance=instance(instance_id, revision=9))
    await service.applied(*await service.publish(deleted, flow_wait_changed(instance_id, 3, ["prices"])))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _status(service, instance_id)
    assert error_info(caught.value).reason == "INSTANCE_NOT_FOUND"


async def test_a_status_shows_its_flow_with_causes(service: RunningStatusService) -> None:
    instance_id = new_id()
    change = flow_change(instance_id, "STALE", version=3, run_number=7)
    change.cause_indexes.append(1)
    causes = [
        lineage_pb2.Cause(kind=lineage_pb2.CAUSE_KIND_OVERDUE),
        lineage_pb2.Cause(kind=lineage_pb2.CAUSE_KIND_OWN_CONFIG, message="as_of"),
    ]
    events = await service.publish(_created(instance_id), flow_statuses(1, change, causes=causes))
    await service.applied(*events)
    status = await _status(service, instance_id)
    assert status.status == flow_pb2.STATUS_STALE
    assert status.instance_name == "prices"
    assert status.project_id == PROJECT
    assert status.last_run_id == change.last_run_id
    assert status.revision > 0
    assert status.HasField("update_time")
    (flow,) = status.flows
    assert flow.is_aggregated
    assert (flow.version, flow.run_number) == (3, 7)
    assert [cause.message for cause in flow.causes] == ["as_of"]


async def test_a_status_shows_why_the_last_run_failed(service: RunningStatusService) -> None:
    instance_id = new_id()
    change = flow_change(instance_id, "ERROR", run_number=1)
    change.failure.type, change.failure.message = "SourceNotFound", "there is no file panel.csv"
    await service.applied(*await service.publish(_created(instance_id), flow_statuses(1, change)))
    assert (await _status(service, instance_id)).flows[0].failure == change.failure
    ready = flow_change(instance_id, "READY", run_number=2, version=1)
    await service.applied(*await service.publish(flow_statuses(2, ready)))
    assert not (await _status(service, instance_id)).flows[0].HasField("failure")


async def test_the_status_follows_the_method_of_the_contract_while_flows_and_contract_change(
    service: RunningStatusService,
) -> None:
    instance_id, kinds = new_id(), ("TRAINING", "INFERENCE", "MONITORING")
    created = _created(instance_id, kind="MODEL", flow_kinds=kinds, method="majority")

    async def after(*messages: Message) -> str:
        await service.applied(*await service.publish(*messages))
        return flow_pb2.Status.Name((await _status(service, instance_id)).status)

    def flows(revision: int, *statuses: str) -> Message:
        pairs = zip(kinds, statuses, strict=True)
        changes = [flow_change(instance_id, status, flow_kind=kind) for kind, status in pairs]
        return flow_statuses(revision, *changes)

    assert await after(created, flows(1, "READY", "STALE", "ERROR")) == "STATUS_ERROR"  # none has a majority
    assert await after(flows(2, "READY", "READY", "ERROR")) == "STATUS_READY"
    assert await after(flows(3, "STALE", "STALE", "READY")) == "STATUS_STALE"
    model = instance(instance_id, revision=2, kind="MODEL", flow_kinds=kinds)
    contract = model.status_aggregation_contract
    contract.aggregation_method = "required_flows"
    contract.required_flows.append(flow_pb2.FLOW_KIND_INFERENCE)
    changed = instance_events_pb2.InstanceUpdated(instance=model)
    assert await after(flows(4, "ERROR", "READY", "STALE"), changed) == "STATUS_READY"
    status = await _status(service, instance_id)
    assert [flow.is_aggregated for flow in status.flows] == [False, True, False]
    assert await after(flows(5, "READY", "RUNNING", "READY")) == "STATUS_RUNNING"


async def test_flows_may_come_before_their_instance(service: RunningStatusService) -> None:
    instance_id = new_id()
    await service.applied(
        *await service.publish(flow_statuses(1, flow_change(instance_id, "READY", version=1)))
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _status(service, instance_id)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert error_info(caught.value).reason == "INSTANCE_NOT_FOUND"
    await service.applied(*await service.publish(_created(instance_id)))
    assert (await _status(service, instance_id)).status == flow_pb2.STATUS_READY


async def test_an_instance_may_come_before_its_flows(service: RunningStatusService) -> None:
    instance_id = new_id()
    await service.applied(*await service.publish(_created(instance_id)))
    status = await _status(service, instance_id)
    assert status.status == flow_pb2.STATUS_NOT_INITIALIZED
    assert [flow.outcome for flow in status.flows] == [lineage_pb2.FLOW_OUTCOME_NEVER]


async def test_a_paused_instance_has_the_status_of_its_flows(service: RunningStatusService) -> None:
    instance_id = new_id()
    created = _created(instance_id, state="PAUSED")
    stale = flow_change(instance_id, "STALE", version=1)
    await service.applied(*await service.publish(created, flow_statuses(1, stale)))
    status = await _status(service, instance_id)
    assert (status.status, status.instance_state) == (
        flow_pb2.STATUS_STALE,
        instance_pb2.INSTANCE_STATE_PAUSED,
    )


async def test_the_contract_of_the_instance_orders_the_severities(service: RunningStatusService) -> None:
    instance_id = new_id()
    kinds = ("TRAINING", "INFERENCE")
    created = _created(instance_id, kind="MODEL", flow_kinds=kinds, priority=("RUNNING", "ERROR"))
    changes = [
        flow_change(instance_id, "ERROR", flow_kind="TRAINING"),
        flow_change(instance_id, "RUNNING", flow_kind="INFERENCE"),
    ]
    await service.applied(*await service.publish(created, flow_statuses(1, *changes)))
    assert (await _status(service, instance_id)).status == flow_pb2.STATUS_RUNNING


async def test_a_repeated_and_an_old_event_change_nothing(service: RunningStatusService) -> None:
    instance_id = new_id()
    first = await service.publish(_created(instance_id), flow_statuses(1, flow_change(instance_id, "ERROR")))
    second = await service.publish(flow_statuses(2, flow_change(instance_id, "READY", version=1)))
    await service.applied(*first, *second)
    before = await _status(service, instance_id)
    await service.resend(*first, *second)
    # The same news under another event id: the inbox does not know it, the guard does.
    late = await service.publish(_created(instance_id), flow_statuses(1, flow_change(instance_id, "ERROR")))
    await service.applied(*late)
    assert await _status(service, instance_id) == before


async def test_a_deleted_instance_stays_deleted(service: RunningStatusService) -> None:
    instance_id = new_id()
    deleted = instance_events_pb2.InstanceDeleted(
        instance=instance(instance_id, revision=3, state="DELETING")
    )
    ready = flow_statuses(1, flow_change(instance_id, "READY", version=1))
    await service.applied(*await service.publish(_created(instance_id), ready))
    await service.applied(*await service.publish(deleted))
    await service.applied(*await service.publish(flow_statuses(2, flow_change(instance_id, "ERROR"))))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _status(service, instance_id)
    assert error_info(caught.value).reason == "INSTANCE_NOT_FOUND"
    history = await service.stub.GetStatusHistory(api.GetStatusHistoryRequest(instance_id=instance_id))
    ended, last = history.transitions[:2]
    assert (ended.from_status, ended.to_status) == (flow_pb2.STATUS_READY, flow_pb2.STATUS_UNSPECIFIED)
    assert last.to_status == flow_pb2.STATUS_READY


async def test_batch_get_keeps_the_order_and_names_every_missing_id(service: RunningStatusService) -> None:
    ids = [new_id() for _ in range(3)]
    await service.applied(*await service.publish(*[_created(each) for each in ids]))
    wanted = [ids[2], ids[0], ids[1]]
    answer = await service.stub.BatchGetInstanceStatuses(
        api.BatchGetInstanceStatusesRequest(instance_ids=wanted)
    )
    assert [status.instance_id for status in answer.instance_statuses] == wanted
    missing = [new_id(), new_id()]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.BatchGetInstanceStatuses(
            api.BatchGetInstanceStatusesRequest(instance_ids=[ids[0], *missing])
        )
    assert all(each in (caught.value.details() or "") for each in missing)


async def test_list_filters_and_pages(service: RunningStatusService) -> None:
    ids = sorted(new_id() for _ in range(7))
    other = new_id()
    created = [_created(each) for each in ids]
    created.append(_created(other, project_id=new_id(), kind="BACKTEST", flow_kinds=("BACKTEST",)))
    running = flow_statuses(1, flow_change(ids[0], "RUNNING"), flow_change(ids[3], "ERROR"))
    await service.applied(*await service.publish(*created, running))
    seen, token = [], ""
    while True:
        page = await service.stub.ListInstanceStatuses(
            api.ListInstanceStatusesRequest(project_id=PROJECT, page_size=3, page_token=token)
        )
        seen += [status.instance_id for status in page.instance_statuses]
        token = page.next_page_token
        if not token:
            break
    assert seen == ids
    words = [flow_pb2.STATUS_RUNNING, flow_pb2.STATUS_ERROR]
    found = await service.stub.ListInstanceStatuses(api.ListInstanceStatusesRequest(statuses=words))
    assert [status.instance_id for status in found.instance_statuses] == [ids[0], ids[3]]
    kinds = [instance_pb2.INSTANCE_KIND_BACKTEST]
    found = await service.stub.ListInstanceStatuses(api.ListInstanceStatusesRequest(kinds=kinds))
    assert [status.instance_id for status in found.instance_statuses] == [other]


async def test_a_page_token_of_another_list_is_refused(service: RunningStatusService) -> None:
    await service.applied(*await service.publish(*[_created(new_id()) for _ in range(3)]))
    page = await service.stub.ListInstanceStatuses(api.ListInstanceStatusesRequest(page_size=1))
    request = api.ListInstanceStatusesRequest(project_id=PROJECT, page_token=page.next_page_token)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.ListInstanceStatuses(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_status_of_a_flow(service: RunningStatusService) -> None:
    instance_id = new_id()
    ready = flow_statuses(1, flow_change(instance_id, "READY", version=4))
    await service.applied(*await service.publish(_created(instance_id), ready))
    flow = flow_pb2.FlowRef(instance_id=instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
    answer = await service.stub.GetFlowStatus(api.GetFlowStatusRequest(flow=flow))
    assert answer.version == 4
    flow.flow_kind = flow_pb2.FLOW_KIND_BACKTEST
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.GetFlowStatus(api.GetFlowStatusRequest(flow=flow))
    assert error_info(caught.value).reason == "FLOW_NOT_FOUND"


async def test_history_has_every_change_of_word_or_version_and_nothing_else(
    service: RunningStatusService,
) -> None:
    instance_id = new_id()
    run_id = new_id()
    await service.applied(*await service.publish(_created(instance_id)))
    await service.applied(
        *await service.publish(
            flow_statuses(1, flow_change(instance_id, "RUNNING", run_number=1), caused_by_run_id=run_id),
            flow_statuses(
                2, flow_change(instance_id, "READY", version=1, run_number=1), caused_by_run_id=run_id
            ),
            flow_statuses(
                3, flow_change(instance_id, "READY", version=1, run_number=2)
            ),  # only the run moved
            flow_statuses(4, flow_change(instance_id, "READY", version=2, run_number=3)),  # only the version
            instance_events_pb2.InstanceUpdated(instance=instance(instance_id, "renamed", revision=2)),
        )
    )
    transitions, token = [], ""
    while True:
        page = await service.stub.GetStatusHistory(
            api.GetStatusHistoryRequest(instance_id=instance_id, page_size=2, page_token=token)
        )
        transitions += page.transitions
        token = page.next_page_token
        if not token:
            break
    assert sorted((each.revision for each in transitions), reverse=True) == [
        each.revision for each in transitions
    ]
    word = flow_pb2.Status.Name
    words = [(word(each.from_status)[7:], word(each.to_status)[7:]) for each in transitions]
    assert words == [
        ("READY", "READY"),
        ("RUNNING", "READY"),
        ("NOT_INITIALIZED", "RUNNING"),
        ("UNSPECIFIED", "NOT_INITIALIZED"),
    ]
    assert [each.caused_by_run_id for each in transitions] == ["", run_id, run_id, ""]


async def test_tenants_do_not_see_each_other(service: RunningStatusService) -> None:
    instance_id = new_id()
    created = _created(instance_id)
    mine = await service.publish(created)
    theirs = await service.publish(created, tenant_id="other")
    await service.applied(*mine, *theirs)
    await service.applied(
        *await service.publish(flow_statuses(1, flow_change(instance_id, "ERROR")), tenant_id="other")
    )
    assert (await _status(service, instance_id)).status == flow_pb2.STATUS_NOT_INITIALIZED
    metadata = caller("maintainer", "other")
    answer = await service.stub.GetInstanceStatus(
        api.GetInstanceStatusRequest(instance_id=instance_id), metadata=metadata
    )
    assert answer.status == flow_pb2.STATUS_ERROR


async def test_a_reader_waits_for_its_own_writes(service: RunningStatusService) -> None:
    instance_id = new_id()
    (created,) = await service.publish(_created(instance_id))
    await service.applied(created)
    run_event = new_id()
    tokens = [("optaic-read-tokens", f"instance/{created.event_id},run/{run_event}")]
    request = api.GetInstanceStatusRequest(instance_id=instance_id)
    reading = asyncio.ensure_future(service.stub.GetInstanceStatus(request, metadata=tokens))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.GetInstanceStatus(request, metadata=tokens, timeout=0.3)
    assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert not reading.done()
    caused = {"caused_by_event_ids": [created.event_id, run_event]}
    await service.publish(flow_statuses(1, flow_change(instance_id, "RUNNING", run_number=1), **caused))
    assert (await reading).status == flow_pb2.STATUS_RUNNING


async def test_changes_are_published_for_the_world(service: RunningStatusService) -> None:
    instance_id = new_id()
    live: list[status_pb2.InstanceStatus] = []
    subscription = await listen(service.nats, f"optaic-live.{TENANT}.status.{instance_id}")
    await service.applied(*await service.publish(_created(instance_id)))
    events = await service.publish(flow_statuses(1, flow_change(instance_id, "READY", version=1)))
    await service.applied(*events)

    async def heard() -> bool:
        live.append(status_pb2.InstanceStatus.FromString((await subscription.next_msg(timeout=10)).data))
        return live[-1].status == flow_pb2.STATUS_READY

    await eventually(heard)
    assert [flow_pb2.Status.Name(status.status) for status in live] == [
        "STATUS_NOT_INITIALIZED",
        "STATUS_READY",
    ]
    jetstream = service.nats.jetstream()
    pull = await jetstream.pull_subscribe("optaic.*.status.v1.>", durable="test", stream="STATUS_EVENTS")
    messages = await pull.fetch(2, timeout=10)
    published = status_events_pb2.InstanceStatusesChanged.FromString(messages[-1].data)
    assert published.caused_by_event_ids == [events[0].event_id]
    assert published.instance_statuses[0] == live[-1]
    assert published.revision == live[-1].revision


async def test_thousands_of_changes_are_applied_at_once(service: RunningStatusService) -> None:
    ids = [new_id() for _ in range(3000)]
    await service.applied(*await service.publish(*[_created(each) for each in ids]))
    changes = [flow_change(each, "STALE", version=1) for each in ids]
    await service.applied(
        *await service.publish(*[flow_statuses(1, *changes[at : at + 1000]) for at in (0, 1000, 2000)])
    )
    found = await service.stub.ListInstanceStatuses(
        api.ListInstanceStatusesRequest(statuses=[flow_pb2.STATUS_NOT_INITIALIZED])
    )
    assert not found.instance_statuses
    answer = await service.stub.BatchGetInstanceStatuses(
        api.BatchGetInstanceStatusesRequest(instance_ids=ids[:1000])
    )
    assert {status.status for status in answer.instance_statuses} == {flow_pb2.STATUS_STALE}
