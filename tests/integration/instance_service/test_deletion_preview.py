"""What a deletion would delete is told beforehand: all of it, in order, and nothing else goes."""

from typing import Any

import grpc

from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance
from optaic.instance.v1.instance_service_pb2 import (
    DeletedInstance,
    DeleteInstanceRequest,
    DeleteProjectRequest,
    GetInstanceRequest,
    ListInstancesRequest,
    PreviewDeletionRequest,
    PreviewDeletionResponse,
)
from support.broker import listen
from support.identities import caller
from support.instance_service import RunningInstanceService, refusal

OTHER_TENANT = caller("maintainer", "other")


async def preview(
    service: RunningInstanceService, instance_id: str, **fields: Any
) -> PreviewDeletionResponse:
    """Return what the deletion of an instance would delete."""
    request = PreviewDeletionRequest(delete_instance=DeleteInstanceRequest(instance_id=instance_id, **fields))
    answer: PreviewDeletionResponse = await service.instances.PreviewDeletion(request)
    return answer


async def readers_of_prices(service: RunningInstanceService) -> tuple[Instance, list[Instance]]:
    """Create prices, and what reads them, in two projects; in the order in which a cascade goes."""
    research, desk = await service.project("research"), await service.project("desk")
    prices = await service.prices(research.project_id)
    one = await service.derived(research.project_id, "one", prices.instance_id)
    two = await service.signal(desk.project_id, "two", prices.instance_id, one.instance_id)
    await service.prices(research.project_id, "aside")
    return prices, [two, one, prices]


async def test_a_cascade_is_listed_in_the_order_of_deletion(service: RunningInstanceService) -> None:
    prices, expected = await readers_of_prices(service)
    before = await service.row_counts()
    shown = await preview(service, prices.instance_id, cascade=True)
    names = {expected[0].project_id: "desk", expected[2].project_id: "research"}
    assert list(shown.instances) == [
        DeletedInstance(
            instance_id=each.instance_id,
            name=each.name,
            kind=each.kind,
            project_id=each.project_id,
            project_name=names[each.project_id],
            state=now.state,
        )
        for each, now in zip(expected, shown.instances, strict=True)
    ]
    assert shown.total_size == 3
    assert all(each.state not in {0, INSTANCE_STATE_DELETING} for each in shown.instances)
    assert await service.row_counts() == before
    assert await preview(service, prices.instance_id, cascade=True) == shown


async def test_a_deletion_deletes_exactly_the_listed_resources(service: RunningInstanceService) -> None:
    prices, _ = await readers_of_prices(service)
    shown = await preview(service, prices.instance_id, cascade=True)
    events = await listen(service.nats, "optaic.*.instance.v1.deletion_requested.*")
    request = DeleteInstanceRequest(
        instance_id=prices.instance_id, cascade=True, preview_etag=shown.preview_etag
    )
    await service.instances.DeleteInstance(request)
    said = [(await events.next_msg(timeout=5)).subject.rpartition(".")[2] for _ in shown.instances]
    assert said == [each.instance_id for each in shown.instances]
    going = ListInstancesRequest(states=[INSTANCE_STATE_DELETING])
    found = (await service.instances.ListInstances(going)).instances
    assert {each.instance_id for each in found} == set(said)
    # What goes already is nothing that would go.
    assert list((await preview(service, prices.instance_id, cascade=True)).instances) == []
    assert (await service.instances.DeleteInstance(request)).state == INSTANCE_STATE_DELETING


async def test_a_resource_outside_of_the_preview_is_not_deleted(service: RunningInstanceService) -> None:
    prices, _ = await readers_of_prices(service)
    shown = await preview(service, prices.instance_id, cascade=True)
    await service.derived(prices.project_id, "late", prices.instance_id)
    request = DeleteInstanceRequest(
        instance_id=prices.instance_id, cascade=True, preview_etag=shown.preview_etag
    )
    refused = await refusal(service.instances.DeleteInstance(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "DELETION_CHANGED")
    alive = await service.instances.GetInstance(GetInstanceRequest(instance_id=prices.instance_id))
    assert alive.state != INSTANCE_STATE_DELETING
    request.preview_etag = (await preview(service, prices.instance_id, cascade=True)).preview_etag
    assert (await service.instances.DeleteInstance(request)).state == INSTANCE_STATE_DELETING


async def test_a_preview_is_refused_as_the_deletion_would_be(service: RunningInstanceService) -> None:
    prices, (two, one, _) = await readers_of_prices(service)
    given: list[dict[str, Any]] = [
        {"instance_id": prices.instance_id},
        {"instance_id": one.dataset.store_instance_id, "cascade": True},
        {"instance_id": prices.instance_id, "cascade": True, "etag": "r9"},
        {"instance_id": "11111111-1111-1111-1111-111111111111"},
    ]
    for each in given:
        shown = await refusal(preview(service, **each))
        assert shown == await refusal(service.instances.DeleteInstance(DeleteInstanceRequest(**each)))
    alone = await preview(service, two.instance_id)
    assert [each.name for each in alone.instances] == ["two"]


async def test_a_refused_deletion_names_the_first_dependants_and_the_remedy(
    service: RunningInstanceService,
) -> None:
    project = await service.project("research")
    prices = await service.prices(project.project_id)
    for number in range(7):
        name = f"{'reader' * 20}{number}"
        await service.derived(project.project_id, name, prices.instance_id)
    shown = await refusal(preview(service, prices.instance_id))
    assert "sp500_prices has the dependants reader" in shown.message
    assert shown.message.endswith(
        "and 2 more: delete them first, or set `cascade` to delete them too"
    )  # and is not cut
    assert len(shown.preconditions) == 7
    request = PreviewDeletionRequest(delete_project=DeleteProjectRequest(project_id=project.project_id))
    shown = await refusal(service.instances.PreviewDeletion(request))
    assert shown.message.endswith("and 3 more: delete them first, or set `cascade` to delete them too")


async def test_a_long_preview_has_consistent_pages(service: RunningInstanceService) -> None:
    prices, expected = await readers_of_prices(service)
    request = PreviewDeletionRequest(
        delete_instance=DeleteInstanceRequest(instance_id=prices.instance_id, cascade=True), page_size=2
    )
    first = await service.instances.PreviewDeletion(request)
    assert first.total_size == 3
    request.page_token = first.next_page_token
    second = await service.instances.PreviewDeletion(request)
    assert second.next_page_token == ""
    found = [*first.instances, *second.instances]
    assert [each.instance_id for each in found] == [each.instance_id for each in expected]
    await service.derived(prices.project_id, "late", prices.instance_id)
    refused = await refusal(service.instances.PreviewDeletion(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "DELETION_CHANGED")
    request.delete_instance.cascade = False
    refused = await refusal(service.instances.PreviewDeletion(request))
    assert refused.reason == "INVALID_PAGE_TOKEN"


async def test_another_tenant_sees_nothing_of_it(service: RunningInstanceService) -> None:
    prices, _ = await readers_of_prices(service)
    request = PreviewDeletionRequest(
        delete_instance=DeleteInstanceRequest(instance_id=prices.instance_id, cascade=True)
    )
    refused = await refusal(service.instances.PreviewDeletion(request, metadata=OTHER_TENANT))
    assert refused.reason == "INSTANCE_NOT_FOUND"
