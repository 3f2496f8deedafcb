"""The life of a definition version, and what each state means for instances."""

import asyncio
import threading
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from instance_service.resources import publication_report
from instance_service.resources.instances import drafts, tracking
from instance_service.use_cases.definitions import publication
from optaic.definition.v1 import definition_events_pb2
from optaic.definition.v1 import definition_service_pb2 as api
from optaic.definition.v1.definition_pb2 import (
    COMPATIBILITY_BREAKING,
    COMPATIBILITY_COMPATIBLE,
    DEFINITION_KIND_PIPELINE,
    DEFINITION_STATE_ACTIVE,
    DEFINITION_STATE_DEPRECATED,
    DEFINITION_STATE_DRAFT,
    DEFINITION_STATE_RETIRED,
    DefinitionVersion,
    PublicationReport,
)
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_ACTIVE, Instance
from support.broker import listen
from support.instance_service import RunningInstanceService, refusal
from support.polling import eventually

STEPS = {
    "activate": (api.ActivateDefinitionVersionRequest, DEFINITION_STATE_DRAFT, DEFINITION_STATE_ACTIVE),
    "deprecate": (
        api.DeprecateDefinitionVersionRequest,
        DEFINITION_STATE_ACTIVE,
        DEFINITION_STATE_DEPRECATED,
    ),
    "retire": (api.RetireDefinitionVersionRequest, DEFINITION_STATE_DEPRECATED, DEFINITION_STATE_RETIRED),
}


async def publish(service: RunningInstanceService, version: str, **fields: Any) -> DefinitionVersion:
    given = {
        "name": "mine",
        "kind": "DEFINITION_KIND_PIPELINE",
        "definitionVersion": {"version": version, "codeRef": "mine.pipelines:Mine"},
        **fields,
    }
    request = json_format.ParseDict(given, api.PublishDefinitionRequest())
    published: DefinitionVersion = await service.definitions.PublishDefinition(request)
    return published


async def take(
    service: RunningInstanceService, step: str, version: DefinitionVersion, **fields: Any
) -> DefinitionVersion:
    request = STEPS[step][0](definition_version_id=version.definition_version_id, **fields)
    moved: DefinitionVersion = await getattr(service.definitions, f"{step.capitalize()}DefinitionVersion")(
        request
    )
    return moved


def dataset(project_id: str, name: str, **pipeline: Any) -> dict[str, Any]:
    return {
        "projectId": project_id,
        "name": name,
        "dataset": {"pipeline": {"definitionName": "mine", **pipeline}},
    }


@pytest.mark.parametrize("steps_before", range(4))
async def test_every_step_in_every_state(service: RunningInstanceService, steps_before: int) -> None:
    version = await publish(service, "1.0.0", draft=True)
    for step in list(STEPS)[:steps_before]:
        version = await take(service, step, version)
    for step, (_, source, target) in STEPS.items():
        if version.state in {source, target}:
            continue
        refused = await refusal(take(service, step, version))
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_STATE"), step
    if steps_before:
        again = list(STEPS)[steps_before - 1]
        assert await take(service, again, version) == version  # once more changes nothing


async def test_a_step_can_be_checked_without_being_taken(service: RunningInstanceService) -> None:
    version = await publish(service, "1.0.0", draft=True)
    assert (await take(service, "activate", version, validate_only=True)).state == DEFINITION_STATE_ACTIVE
    refused = await refusal(take(service, "deprecate", version, validate_only=True))
    assert refused.reason == "INVALID_STATE"
    assert (await publish(service, "1.0.0")).state == DEFINITION_STATE_DRAFT


async def test_a_step_is_idempotent_by_its_request_id(service: RunningInstanceService) -> None:
    version = await publish(service, "1.0.0", draft=True)
    first = await take(service, "activate", version, request_id="a")
    await take(service, "deprecate", version)
    assert await take(service, "activate", version, request_id="a") == first
    other = await refusal(take(service, "activate", version, request_id="a", reason="another"))
    assert other.reason == "REQUEST_ID_REUSED"


async def test_every_step_is_published(service: RunningInstanceService) -> None:
    heard: list[Any] = []

    async def hear(message: Any) -> None:
        name = message.headers["ce-type"].rpartition(".")[2]
        if name.startswith("Definition"):
            event = getattr(definition_events_pb2, name).FromString(message.data)
            if event.definition_version.definition_name == "mine":
                heard.append((name, event.definition_version.state, event.reason or ""))

    await listen(service.nats, "optaic.default.definition.v1.>", cb=hear)
    version = await publish(service, "1.0.0", draft=True)
    for step in STEPS:
        await take(service, step, version, reason=f"to {step}")
    await eventually(lambda: len(heard) == 4)
    assert heard == [
        ("DefinitionPublished", DEFINITION_STATE_DRAFT, ""),
        ("DefinitionPublished", DEFINITION_STATE_ACTIVE, "to activate"),
        ("DefinitionDeprecated", DEFINITION_STATE_DEPRECATED, "to deprecate"),
        ("DefinitionRetired", DEFINITION_STATE_RETIRED, "to retire"),
    ]


async def test_a_draft_is_never_the_newest_but_can_be_named(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    await publish(service, "1.0.0")
    draft = await publish(service, "2.0.0", draft=True)
    assert draft.state == DEFINITION_STATE_DRAFT
    named = api.GetDefinitionRequest(kind=DEFINITION_KIND_PIPELINE, name="mine")
    assert (await service.definitions.GetDefinition(named)).newest_version.version == "1.0.0"
    newest = await service.create(dataset(project_id, "newest", trackNewest=True))
    assert newest.dataset.pipeline.definition_version == "1.0.0"
    pinned = await service.create(dataset(project_id, "pinned", definitionVersion="2.0.0"))
    assert pinned.dataset.pipeline.definition_version_id == draft.definition_version_id
    await take(service, "activate", draft)
    await service.until(
        newest.instance_id, lambda found: found.dataset.pipeline.definition_version == "2.0.0"
    )


async def test_only_drafts_are_no_newest_at_all(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    await publish(service, "1.0.0", draft=True)
    refused = await refusal(service.create(dataset(project_id, "one")))
    assert (refused.reason, list(refused.fields)) == (
        "DEFINITION_NOT_FOUND",
        ["instance.dataset.pipeline"],
    )


async def test_a_retired_version_refuses_new_instances_and_breaks_no_old_one(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id
    version = await publish(service, "1.0.0")
    old = await service.create(dataset(project_id, "old"))
    following = await service.create(dataset(project_id, "following", trackNewest=True))
    await take(service, "deprecate", version)
    late = await service.create(dataset(project_id, "late", definitionVersion="1.0.0"))
    await take(service, "retire", version)
    for pin, field in (
        ({"definitionVersion": "1.0.0"}, "definition_version"),
        ({"definitionVersionId": version.definition_version_id}, "definition_version_id"),
    ):
        refused = await refusal(service.create(dataset(project_id, "new", **pin)))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC")
        assert list(refused.fields) == [f"instance.dataset.pipeline.{field}"]
    for instance in (old, following, late):
        updated = await service.update(instance.instance_id, {"description": "still works"}, "description")
        assert updated.dataset.pipeline.definition_version == "1.0.0"
    # Others must not begin to use it either.
    prices = await service.prices(project_id)
    pipeline = {"definitionName": "mine", "definitionVersion": "1.0.0"}
    moved = service.update(prices.instance_id, {"dataset": {"pipeline": pipeline}}, "dataset.pipeline")
    assert (await refusal(moved)).reason == "INVALID_SPEC"


async def test_a_tracking_instance_never_moves_back(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    await publish(service, "1.0.0")
    newest = await publish(service, "2.0.0")
    following = await service.create(dataset(project_id, "following", trackNewest=True))
    await take(service, "deprecate", newest)
    updated = await service.update(following.instance_id, {"description": "changed"}, "description")
    assert updated.dataset.pipeline.definition_version == "2.0.0"
    fresh = await service.create(dataset(project_id, "fresh", trackNewest=True))
    assert fresh.dataset.pipeline.definition_version == "1.0.0"


async def test_a_dry_run_stores_nothing(service: RunningInstanceService) -> None:
    checked = await publish(service, "1.0.0", validateOnly=True, requestId="a")
    assert (checked.version, checked.state) == ("1.0.0", DEFINITION_STATE_ACTIVE)
    named = api.GetDefinitionRequest(kind=DEFINITION_KIND_PIPELINE, name="mine")
    assert (await refusal(service.definitions.GetDefinition(named))).reason == "DEFINITION_NOT_FOUND"
    published = await publish(service, "1.0.0", requestId="b")
    assert published.content_hash == checked.content_hash


async def test_publishing_the_same_content_again_returns_its_present_state(
    service: RunningInstanceService,
) -> None:
    draft = await publish(service, "1.0.0", draft=True)
    assert (await publish(service, "1.0.0")).state == DEFINITION_STATE_DRAFT
    await take(service, "activate", draft)
    assert (await publish(service, "1.0.0", draft=True)).state == DEFINITION_STATE_ACTIVE


async def test_a_publication_reports_the_instances_that_it_breaks_and_why(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id

    def version(number: str, **properties: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": number, "codeRef": "mine.pipelines:Mine", "parametersSchema": schema}

    old, new = {"a": {"type": "integer"}, "b": {}}, {"a": {"type": "integer", "maximum": 3}, "b": {}, "c": {}}
    first = (await publish(service, "", definitionVersion=version("1.0.0", **old))).publication_report
    assert (first.previous_version, list(first.schema_changes)) == ("", [])
    for name, value in (("fits", 3), ("breaks", 4)):
        await service.create(dataset(project_id, name, trackNewest=True, config={"a": value}))
    await service.create(dataset(project_id, "pinned", config={"a": 4}))
    second = version("2.0.0", **new)
    checked = await publish(service, "", definitionVersion=second, validateOnly=True)
    published = await publish(service, "", definitionVersion=second)
    report = published.publication_report
    assert report == checked.publication_report
    assert report.previous_version == "1.0.0"
    assert report.compatibility == COMPATIBILITY_BREAKING
    assert [(change.path, change.compatibility) for change in report.schema_changes] == [
        ("/parameters_schema/properties/a/maximum", COMPATIBILITY_BREAKING),
        ("/parameters_schema/properties/c", COMPATIBILITY_COMPATIBLE),
    ]
    assert report.tracking_instance_count == 2
    assert [
        (one.name, [text.partition(":")[0] for text in one.violations]) for one in report.tracking_instances
    ] == [
        ("breaks", ["instance.dataset.pipeline.config.a"]),
        ("fits", []),
    ]
    assert all(one.instance_id and one.project_id == project_id for one in report.tracking_instances)
    # Nobody would follow a version that is not the newest; it is compared with the one before it.
    patch = (await publish(service, "", definitionVersion=version("1.0.1", **old))).publication_report
    assert (patch.previous_version, patch.compatibility) == ("1.0.0", COMPATIBILITY_COMPATIBLE)
    assert patch.tracking_instance_count == 0
    stored = api.GetDefinitionVersionRequest(definition_version_id=published.definition_version_id)
    assert not (await service.definitions.GetDefinitionVersion(stored)).HasField("publication_report")


async def test_a_report_fits_an_answer(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_id = (await service.project()).project_id
    names = [f"k{n}" for n in range(12)]

    def version(number: str, **rules: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": {name: {"type": "integer", **rules} for name in names}}
        return {"version": number, "codeRef": "mine.pipelines:Mine", "parametersSchema": schema}

    await publish(service, "", definitionVersion=version("1.0.0"))
    for name in ("one", "two", "three"):
        given = dataset(project_id, name, trackNewest=True, config=dict.fromkeys(names, 1))
        await service.create(given)
    second = version("2.0.0", maximum=0)
    whole = (await publish(service, "", definitionVersion=second, validateOnly=True)).publication_report
    for found in whole.tracking_instances:
        assert (len(found.violations), found.violations[-1]) == (11, "and 2 more")
    most = sum(found.ByteSize() for found in whole.tracking_instances[:2])
    monkeypatch.setattr(publication_report, "_MOST_BYTES", most)
    cut = (await publish(service, "", definitionVersion=second, validateOnly=True)).publication_report
    assert list(cut.tracking_instances) == list(whole.tracking_instances[:2])
    assert list(cut.schema_changes) == list(whole.schema_changes)
    assert (cut.tracking_instance_count, cut.compatibility) == (3, COMPATIBILITY_BREAKING)


async def test_publishing_a_past_version_again_reports_no_tracking_instances(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id
    await publish(service, "1.0.0")
    newest = await publish(service, "2.0.0")
    await take(service, "deprecate", newest)
    await service.create(dataset(project_id, "following", trackNewest=True))
    for step in ("deprecate", "retire"):
        await take(service, step, newest)
        report = (await publish(service, "2.0.0")).publication_report
        assert (report.previous_version, report.tracking_instance_count) == ("1.0.0", 0)


async def test_a_dry_run_does_not_block_other_calls(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def report(*given: Any) -> PublicationReport:
        await asyncio.wait_for(service.project("beside"), 5)
        return await publication_report.report(*given)

    monkeypatch.setattr(publication, "report", report)
    assert (await publish(service, "1.0.0", validateOnly=True)).HasField("publication_report")


async def test_tracking_instances_are_checked_while_other_calls_are_served(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def complete(*given: Any) -> drafts.Draft:
        threads.add(threading.current_thread())
        return drafts.complete(*given)

    monkeypatch.setattr(tracking, "complete", complete)
    project_id = (await service.project()).project_id
    await publish(service, "1.0.0")
    instance = await service.create(dataset(project_id, "following", trackNewest=True))
    await publish(service, "2.0.0")
    await service.until(instance.instance_id, lambda found: found.revision == 2)
    assert threads
    assert threading.current_thread() not in threads


def _says(instance: Instance) -> list[tuple[str, str, str]]:
    return [(one.type, one.reason, one.message) for one in instance.conditions]


async def test_an_instance_with_a_deprecated_version_has_a_condition(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    old, new = await publish(service, "1.0.0"), await publish(service, "2.0.0")
    before = await service.create(dataset(project_id, "before", definitionVersion="1.0.0"))
    other = await service.create(dataset(project_id, "other"))
    said = [("DefinitionDeprecated", "VersionDeprecated", "version 1.0.0 of mine is deprecated")]
    await take(service, "deprecate", old)
    told = await service.until(before.instance_id, lambda found: _says(found) == said)
    assert (told.state, told.revision) == (INSTANCE_STATE_ACTIVE, 1)
    given = dataset(project_id, "late", definitionVersion="1.0.0")
    pending = "PrefectDeploymentReady"
    dry = await service.create(given, validate_only=True)
    assert [one for one in _says(dry) if one[0] != pending] == said
    late = await service.create(given)
    assert [one for one in _says(late) if one[0] != pending] == said
    labelled = await service.update(before.instance_id, {"labels": {"a": "b"}}, "labels")
    assert list(labelled.conditions) == list(told.conditions)
    await take(service, "retire", old)
    said = [("DefinitionDeprecated", "VersionRetired", "version 1.0.0 of mine is retired")]
    retired = await service.until(before.instance_id, lambda found: _says(found) == said)
    assert retired.conditions[0].since_time == told.conditions[0].since_time
    pipeline = {"pipeline": {"definitionVersionId": new.definition_version_id}}
    moved = await service.update(
        before.instance_id, {"dataset": pipeline}, "dataset.pipeline.definition_version_id"
    )
    assert not _says(moved)
    assert not _says(await service.until_active(other.instance_id))


async def test_an_instance_that_cannot_move_to_the_newest_version_has_a_condition_until_it_can(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id

    def limited(number: str, **rules: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"a": {"type": "integer", **rules}}}
        return {"version": number, "codeRef": "mine.pipelines:Mine", "parametersSchema": schema}

    await publish(service, "", definitionVersion=limited("1.0.0"))
    made = [
        await service.create(dataset(project_id, name, trackNewest=True, config={"a": 4}))
        for name in ("one", "two")
    ]
    for instance in made:
        await service.until_active(instance.instance_id)
    newest = await publish(service, "", definitionVersion=limited("2.0.0", maximum=3))
    for instance in made:
        stuck = await service.until(instance.instance_id, _says)
        ((kind, reason, message),) = _says(stuck)
        assert (kind, reason) == ("FollowsNewest", "NewestDoesNotFit")
        assert message.startswith("instance.dataset.pipeline.config.a: 4 is more than")
        assert (stuck.state, stuck.revision) == (INSTANCE_STATE_ACTIVE, 1)
        assert stuck.dataset.pipeline.definition_version == "1.0.0"
    # What has nothing to do with its version can be changed meanwhile, and what has must fit the newest.
    labelled = await service.update(made[0].instance_id, {"labels": {"a": "b"}}, "labels")
    assert (labelled.revision, labelled.dataset.pipeline.definition_version) == (2, "1.0.0")
    assert list(labelled.conditions)[-1].type == "FollowsNewest"
    wrong = {"dataset": {"pipeline": {"config": {"a": 5}}}}
    refused = await refusal(service.update(made[0].instance_id, wrong, "dataset.pipeline.config"))
    assert list(refused.fields) == ["instance.dataset.pipeline.config.a"]
    # It fits, because it was changed, or because there is nothing to follow any more.
    changed = {"dataset": {"pipeline": {"config": {"a": 3}}}}
    fits = await service.update(made[0].instance_id, changed, "dataset.pipeline.config")
    assert (fits.dataset.pipeline.definition_version, _says(fits)) == ("2.0.0", [])
    await take(service, "deprecate", newest)
    relieved = await service.until(made[1].instance_id, lambda found: not found.conditions)
    assert relieved.revision == 1
