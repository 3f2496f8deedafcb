"""Finding instances by what they are, page by page, and comparing revisions."""

from typing import Any

import pytest
from google.protobuf import json_format

from optaic.instance.v1.instance_service_pb2 import (
    DiffInstanceRevisionsRequest,
    ListInstancesRequest,
    PauseInstanceRequest,
)
from support.definitions import model, publish
from support.instance_service import RunningInstanceService, refusal


async def _names(service: RunningInstanceService, filters: dict[str, Any], page_size: int) -> list[str]:
    """Return the names of all pages."""
    names: list[str] = []
    request = json_format.ParseDict({"pageSize": page_size, **filters}, ListInstancesRequest())
    while True:
        answer = await service.instances.ListInstances(request)
        names.extend(instance.name for instance in answer.instances)
        if not answer.next_page_token:
            return names
        assert len(answer.instances) == page_size
        request.page_token = answer.next_page_token


@pytest.mark.parametrize("page_size", [1, 100])
async def test_instances_are_found_by_state_owner_definition_and_labels(
    service: RunningInstanceService, page_size: int
) -> None:
    linear = await publish(service, "linear")
    project_id = (await service.project()).project_id
    one = await service.prices(project_id, "one", owner="ann", labels={"team": "a", "tier": "1"})
    two = await service.prices(project_id, "two", owner="bob", labels={"team": "a"})
    derived = await service.derived(project_id, "three", one.instance_id, owner="ann")
    await service.create(model(project_id, "four", one.instance_id))
    await service.instances.PauseInstance(PauseInstanceRequest(instance_id=two.instance_id))
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["four", "one", "three", "two"]),
        ({"owner": "ann"}, ["one", "three"]),
        ({"owner": "nobody"}, []),
        ({"states": ["INSTANCE_STATE_PAUSED"]}, ["two"]),
        (
            {"states": ["INSTANCE_STATE_ACTIVE", "INSTANCE_STATE_PAUSED"], "owner": "bob"},
            ["two"],
        ),
        ({"definitionId": one.dataset.pipeline.definition_id}, ["one", "two"]),
        ({"definitionId": one.dataset.store.definition_id}, ["one", "three", "two"]),
        ({"definitionId": linear.definition_id.upper()}, ["four"]),
        ({"definitionId": derived.instance_id}, []),
        ({"labels": {"team": "a"}}, ["one", "two"]),
        ({"labels": {"team": "a", "tier": "1"}}, ["one"]),
        ({"labels": {"team": "b"}}, []),
        ({"labels": {"team": "a"}, "definitionId": one.dataset.store.definition_id}, ["one", "two"]),
        ({"projectId": project_id, "kinds": ["INSTANCE_KIND_MODEL"]}, ["four"]),
        ({"projectId": linear.definition_id}, []),
        ({"name": "two", "kinds": ["INSTANCE_KIND_DATASET", "INSTANCE_KIND_MODEL"]}, ["two"]),
        ({"kinds": ["INSTANCE_KIND_DATASET"] * 2 + ["INSTANCE_KIND_MODEL"]}, ["four", "one", "three", "two"]),
        (
            {
                "kinds": ["INSTANCE_KIND_DATASET", "INSTANCE_KIND_PIPELINE"],
                "states": ["INSTANCE_STATE_ACTIVE", "INSTANCE_STATE_PAUSED"],
            },
            ["one", "one.pipeline", "three", "three.pipeline", "two", "two.pipeline"],
        ),
        (
            {"definitionId": one.dataset.pipeline.definition_id, "kinds": ["INSTANCE_KIND_PIPELINE"]},
            ["one.pipeline", "two.pipeline"],
        ),
    ]
    for filters, names in expected:
        assert await _names(service, filters, page_size) == names, filters
    await service.update(
        two.instance_id, {"owner": "ann", "name": "deux", "labels": {"team": "b"}}, "owner", "name", "labels"
    )
    for filters, names in (
        ({"owner": "ann"}, ["deux", "one", "three"]),
        ({"labels": {"team": "a"}}, ["one"]),
        ({"labels": {"team": "b"}}, ["deux"]),
        ({"definitionId": one.dataset.pipeline.definition_id}, ["deux", "one"]),
    ):
        assert await _names(service, filters, page_size) == names, filters


async def test_a_page_token_belongs_to_its_filters(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    for name in ("a", "b"):
        await service.prices(project_id, name, owner="ann")
    first = await service.instances.ListInstances(ListInstancesRequest(owner="ann", page_size=1))
    other = ListInstancesRequest(owner="bob", page_size=1, page_token=first.next_page_token)
    assert (await refusal(service.instances.ListInstances(other))).code.name == "INVALID_ARGUMENT"


async def test_two_revisions_are_compared(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id)
    await service.update(
        prices.instance_id,
        {"dataset": {"pipeline": {"config": {"as_of": "2022-12-28"}}}, "labels": {"team": "a"}},
        "dataset.pipeline.config",
        "labels",
    )
    request = DiffInstanceRevisionsRequest(instance_id=prices.instance_id, from_revision=1)
    changes = (await service.instances.DiffInstanceRevisions(request)).changes
    assert [change.path for change in changes] == [
        "dataset.pipeline.config.as_of",
        "flows[0].compute_fingerprint",
        "flows[0].fingerprint_change",
        "labels",
        "state",
    ]
    first, *_, labels, _ = changes
    assert (first.from_value.string_value, first.to_value.string_value) == ("2021-12-31", "2022-12-28")
    assert not labels.HasField("from_value")
    assert labels.to_value.struct_value["team"] == "a"
    same = DiffInstanceRevisionsRequest(instance_id=prices.instance_id, from_revision=2, to_revision=2)
    assert not (await service.instances.DiffInstanceRevisions(same)).changes
    for instance_id, revision, reason in (
        (prices.instance_id, 9, "REVISION_NOT_FOUND"),
        (project_id, 1, "INSTANCE_NOT_FOUND"),
    ):
        missing = DiffInstanceRevisionsRequest(instance_id=instance_id, from_revision=revision)
        assert (await refusal(service.instances.DiffInstanceRevisions(missing))).reason == reason
