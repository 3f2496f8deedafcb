"""What is large is refused, or lives like anything else."""

import grpc

from instance_service.store import instances as store
from instance_service.store import listing
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance, Project
from optaic.instance.v1.instance_service_pb2 import (
    BatchGetInstancesRequest,
    CreateProjectRequest,
    DeleteInstanceRequest,
    ListInstanceRevisionsRequest,
    ListInstancesRequest,
    PauseInstanceRequest,
)
from servicekit.events import MAXIMUM_RESOURCE
from support.definitions import model, publish
from support.instance_service import TENANT, RunningInstanceService, refusal


def labels_of(size: int) -> dict[str, str]:
    """Return labels that have this many bytes in an instance; no label is longer than the contract allows."""
    labels = {f"note{number}": "x" * 16_000 for number in range(10, 10 + size // 16_000)}
    labels["rest"] = ""
    labels["rest"] = "x" * min(16_384, size - Instance(labels=labels).ByteSize() - 4)
    return labels


async def test_large_instances_are_listed_in_shorter_pages_and_live_like_others(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    labels = labels_of(505_000)
    made = [await service.prices(project.project_id, f"n{n}", labels=labels) for n in range(9)]
    found: list[str] = []
    page = ListInstancesRequest(project_id=project.project_id, page_size=100)
    while True:
        answer = await service.instances.ListInstances(page)
        assert answer.ByteSize() < 4_000_000
        found += [item.name for item in answer.instances]
        if not answer.next_page_token:
            break
        page.page_token = answer.next_page_token
    assert found == [item.name for item in made]

    ids = [item.instance_id for item in made]
    batch = BatchGetInstancesRequest(instance_ids=ids * 4)
    refused = await refusal(service.instances.BatchGetInstances(batch))
    assert (refused.code, refused.field_reasons) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        {"instance_ids": "TOO_LARGE"},
    )

    one = made[0].instance_id
    await service.until_active(one)
    for number in range(8):
        await service.update(one, {"owner": f"o{number}"}, "owner")
    revisions: list[int] = []
    history = ListInstanceRevisionsRequest(instance_id=one)
    while True:
        part = await service.instances.ListInstanceRevisions(history)
        revisions += [item.instance.revision for item in part.revisions]
        if not part.next_page_token:
            break
        history.page_token = part.next_page_token
    assert revisions == list(range(9, 0, -1))
    async with service.app.deps.database.read(TENANT) as connection:  # read is no more than is answered
        selection = listing.Selection(project_id=project.project_id)
        rows = await listing.list_instances(connection, TENANT, selection, None, 101)
        assert [row.name for row in rows] == found[:6]
        rows = await store.list_revisions(connection, TENANT, one, None, 101)
        assert [row.revision for row in rows] == revisions[:6]
    await service.instances.PauseInstance(PauseInstanceRequest(instance_id=one))
    deleting = await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=one))
    assert deleting.state == INSTANCE_STATE_DELETING


async def test_an_oversized_resource_is_refused_at_the_change(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    labels = labels_of(512_000)
    note = "x" * 512
    created = await refusal(service.prices(project.project_id, labels=labels))
    assert (created.reason, created.field_reasons) == ("TOO_LARGE", {"instance": "TOO_LARGE"})
    prices = await service.prices(project.project_id)
    updated = await refusal(service.update(prices.instance_id, {"labels": labels}, "labels"))
    assert (updated.reason, list(updated.fields)) == ("TOO_LARGE", ["instance"])
    request = CreateProjectRequest(project=Project(name="large", labels=labels))
    large = await refusal(service.instances.CreateProject(request))
    assert (large.reason, list(large.fields)) == ("TOO_LARGE", ["project"])
    guardrail = {
        "name": "complete",
        "check": "required_columns",
        "parameters": {"columns": [f"{number}{note}" for number in range(1000)]},
        "enforcement": "ENFORCEMENT_BLOCK",
    }
    published = await refusal(publish(service, "linear", "1.0.0", guardrailContracts=[guardrail]))
    assert (published.reason, list(published.fields)) == ("TOO_LARGE", ["definition_version"])


async def test_conditions_do_not_count_for_the_size_limit(service: RunningInstanceService) -> None:
    project = await service.project()
    made = await service.until_active((await service.prices(project.project_id)).instance_id)
    labels = labels_of(MAXIMUM_RESOURCE - made.ByteSize() - 26)
    service.deployments.break_down()
    await service.update(made.instance_id, {"labels": labels}, "labels")
    degraded = await service.until(made.instance_id, lambda found: found.conditions)
    assert degraded.ByteSize() > MAXIMUM_RESOURCE
    changed = await service.update(made.instance_id, {"owner": "ada"}, "owner")
    assert (changed.owner, list(changed.conditions)) == ("ada", list(degraded.conditions))


async def test_an_instance_that_would_exceed_the_limit_is_unchanged_and_delays_no_other(
    service: RunningInstanceService,
) -> None:
    await publish(service, "linear", "1.0.0")
    project = await service.project()
    prices = await service.prices(project.project_id)
    made = [
        await service.create(model(project.project_id, name, prices.instance_id, trackNewest=True))
        for name in ("large", "other")
    ]
    large, other = [await service.until_active(one.instance_id) for one in made]
    labels = labels_of(MAXIMUM_RESOURCE - large.ByteSize() - 26)
    large = await service.update(large.instance_id, {"labels": labels}, "labels")
    assert MAXIMUM_RESOURCE - 40 < large.ByteSize() < MAXIMUM_RESOURCE
    await publish(service, "linear", "2.0.0", parametersSchema={"type": "object"})
    await service.until(other.instance_id, lambda found: found.definition_version == "2.0.0")
    stuck = await service.until(large.instance_id, lambda found: len(found.conditions) == 1)
    assert (stuck.definition_version, stuck.conditions[0].reason) == ("1.0.0", "NewestDoesNotFit")
    assert "512000" in stuck.conditions[0].message
    await service.update(large.instance_id, {"labels": {}}, "labels")
    moved = await service.until(large.instance_id, lambda found: not found.conditions)
    assert moved.definition_version == "2.0.0"
