"""Changing instances: revisions, masks, etags, fingerprints and cycles."""

import os
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from instance_service import jsonschema_adapter
from optaic.definition.v1.definition_pb2 import DEFINITION_KIND_PIPELINE
from optaic.definition.v1.definition_service_pb2 import GetDefinitionRequest, PublishDefinitionRequest
from optaic.instance.v1.instance_service_pb2 import GetInstanceRequest, ListInstanceRevisionsRequest
from support.broker import listen
from support.definitions import model, optimizer, publish
from support.instance_service import RunningInstanceService, derived, refusal
from support.polling import eventually

_TRACKERS = 1000 if os.environ.get("OPTAIC_FAULTS") == "full" else 12


async def test_a_changed_config_makes_a_revision_of_dataset_and_component(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    changed = await service.update(
        prices.instance_id,
        {"dataset": {"pipeline": {"config": {"as_of": "2022-12-28"}}}, "etag": prices.etag},
        "dataset.pipeline.config",
        reason="a year later",
    )
    assert (changed.revision, changed.etag) == (2, "r2")
    assert changed.dataset.pipeline.definition_version_id == prices.dataset.pipeline.definition_version_id
    assert changed.flows[0].compute_fingerprint != prices.flows[0].compute_fingerprint
    assert changed.flows[0].prefect_deployment_id == prices.flows[0].prefect_deployment_id
    pipeline = await service.instances.GetInstance(
        GetInstanceRequest(instance_id=prices.dataset.pipeline_instance_id)
    )
    store = await service.instances.GetInstance(
        GetInstanceRequest(instance_id=prices.dataset.store_instance_id)
    )
    assert (pipeline.revision, store.revision) == (2, 1)
    request = ListInstanceRevisionsRequest(instance_id=prices.instance_id)
    revisions = (await service.instances.ListInstanceRevisions(request)).revisions
    assert [(item.instance.revision, item.author, item.reason) for item in revisions] == [
        (2, "developer", "a year later"),
        (1, "developer", ""),
    ]
    first = await service.instances.GetInstance(
        GetInstanceRequest(instance_id=prices.instance_id, revision=1)
    )
    assert first.dataset.pipeline.config["as_of"] == "2021-12-31"
    gone = await refusal(
        service.instances.GetInstance(GetInstanceRequest(instance_id=prices.instance_id, revision=9))
    )
    assert gone.reason == "REVISION_NOT_FOUND"


async def test_a_time_zone_changes_the_fingerprint_but_an_explicit_utc_does_not(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    fingerprints = [prices.flows[0].compute_fingerprint]
    for timezone in ("UTC", "Asia/Tokyo", ""):
        changed = await service.update(
            prices.instance_id, {"dataset": {"timezone": timezone}}, "dataset.timezone"
        )
        assert changed.dataset.timezone == timezone
        fingerprints.append(changed.flows[0].compute_fingerprint)
        if timezone == "Asia/Tokyo":
            assert changed.flows[0].fingerprint_change == "its time zone changed from UTC to Asia/Tokyo"
    assert [each == fingerprints[0] for each in fingerprints] == [True, True, False, True]


async def test_a_change_without_effect_on_results_keeps_the_fingerprint(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    given = {
        "name": "renamed",
        "labels": {"a": "b"},
        "owner": "bob",
        "description": "closes",
        "schedule": {"cron": {"expression": "30 16 * * 1-5", "timezone": "America/New_York"}},
        "freshnessPolicy": {"frequency": "FREQUENCY_DAILY"},
        "autoRefresh": {"mode": "MODE_ALL_UPSTREAMS", "minInterval": "60s"},
    }
    paths = ("name", "labels", "owner", "description", "schedule", "freshness_policy", "auto_refresh")
    changed = await service.update(prices.instance_id, given, *paths)
    assert changed.revision == 2
    assert changed.flows[0].compute_fingerprint == prices.flows[0].compute_fingerprint
    name = changed.flows[0].prefect_deployment_name

    def is_scheduled() -> bool:
        (timing,) = service.deployments.stored[name][1].timings or (None,)
        return timing is not None and timing.cron == "30 16 * * 1-5" and timing.timezone == "America/New_York"

    await eventually(is_scheduled)


async def test_an_update_that_changes_nothing_makes_no_revision(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    before = await service.row_counts()
    same = await service.update(prices.instance_id, {"description": ""}, "description")
    assert same == prices
    assert await service.row_counts() == before


async def test_a_stale_etag_is_refused(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    await service.update(prices.instance_id, {"description": "x", "etag": prices.etag}, "description")
    before = await service.row_counts()
    stale = await refusal(
        service.update(prices.instance_id, {"description": "y", "etag": prices.etag}, "description")
    )
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await service.row_counts() == before


async def test_paths_that_may_not_change_are_named(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    paths = (
        "project_id", "state", "flows", "dataset.pipeline_instance_id", "backtest", "nonsense",
        "dataset.pipeline.config.as_of", "labels.team",
    )  # fmt: skip
    refused = await refusal(service.update(prices.instance_id, {}, "owner", *paths))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IMMUTABLE_FIELD")
    assert set(refused.fields) == {f"update_mask.paths[{index}]" for index in range(1, len(paths) + 1)}
    component = await refusal(
        service.update(prices.dataset.pipeline_instance_id, {"config": {"as_of": "2020-01-01"}}, "config")
    )
    assert component.reason == "UNSUPPORTED_KIND"


async def test_a_bad_update_leaves_everything_as_it_was(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    before = await service.row_counts()
    bad = await refusal(
        service.update(
            prices.instance_id, {"dataset": {"pipeline": {"config": {"as_of": 7}}}}, "dataset.pipeline.config"
        )
    )
    assert (bad.reason, list(bad.fields)) == ("INVALID_CONFIG", ["instance.dataset.pipeline.config.as_of"])
    dry = await service.update(
        prices.instance_id, {"description": "never"}, "description", validate_only=True, request_id="dry"
    )
    assert dry.revision == 2
    now = await service.instances.GetInstance(GetInstanceRequest(instance_id=prices.instance_id))
    assert (now, await service.row_counts()) == (prices, before)


async def test_a_cycle_is_refused_with_its_path(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    one = await service.derived(project.project_id, "one", prices.instance_id)
    two = await service.derived(project.project_id, "two", one.instance_id)
    three = await service.derived(project.project_id, "three", two.instance_id)
    before = await service.row_counts()
    closing = derived(project.project_id, "one", prices.instance_id, three.instance_id)
    for is_dry in (True, False):
        refused = await refusal(
            service.update(
                one.instance_id,
                {"upstreamRefs": closing["upstreamRefs"]},
                "upstream_refs",
                validate_only=is_dry,
            )
        )
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CYCLE")
        assert "one -> three -> two -> one" in refused.message
        assert list(refused.fields) == ["instance.upstream_refs[1]"]
    itself = derived(project.project_id, "one", one.instance_id)
    own = await refusal(
        service.update(one.instance_id, {"upstreamRefs": itself["upstreamRefs"]}, "upstream_refs")
    )
    assert own.reason == "INVALID_SPEC"
    assert await service.row_counts() == before


async def test_a_tracking_instance_moves_to_the_newest_version(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    follower = await service.update(
        prices.instance_id, {"dataset": {"pipeline": {"trackNewest": True}}}, "dataset.pipeline.track_newest"
    )
    assert follower.flows[0].compute_fingerprint == prices.flows[0].compute_fingerprint
    pinned = await service.prices(project.project_id, "pinned")
    definition = await service.definitions.GetDefinition(
        GetDefinitionRequest(kind=DEFINITION_KIND_PIPELINE, name="sp500_prices")
    )
    request = PublishDefinitionRequest(
        name="sp500_prices", kind=DEFINITION_KIND_PIPELINE, definition_version=definition.newest_version
    )
    request.definition_version.version = "1.10.0"
    await service.definitions.PublishDefinition(request)
    moved = await service.until(
        prices.instance_id, lambda found: found.dataset.pipeline.definition_version == "1.10.0"
    )
    assert moved.revision == follower.revision + 1
    (flow,) = moved.flows
    assert flow.compute_fingerprint != follower.flows[0].compute_fingerprint
    what = "definition sp500_prices moved from version 1.1.0 to 1.10.0"
    assert flow.fingerprint_change == what
    listed = await service.instances.ListInstanceRevisions(
        ListInstanceRevisionsRequest(instance_id=prices.instance_id)
    )
    newest = listed.revisions[0]
    assert (newest.author, newest.reason) == ("instance-service", f"tracks the newest versions: {what}")
    labelled = await service.update(prices.instance_id, {"labels": {"a": "b"}}, "labels")
    assert labelled.flows[0].fingerprint_change == what
    still = await service.instances.GetInstance(GetInstanceRequest(instance_id=pinned.instance_id))
    assert still.dataset.pipeline.definition_version == "1.1.0"


async def test_tracking_instances_move_with_one_event_each_unless_they_do_not_fit(
    service: RunningInstanceService,
) -> None:
    for name in ("linear", "halves"):
        await publish(service, name)
    project_id = (await service.project()).project_id
    prices = (await service.prices(project_id)).instance_id
    signal = (await service.signal(project_id, "signal", prices)).instance_id
    given = [optimizer(project_id, f"o{number}", signal, trackNewest=True) for number in range(_TRACKERS)]
    trackers = [await service.create(one) for one in given]
    misfit = await service.create(
        optimizer(project_id, "misfit", signal, trackNewest=True, config={"risk_aversion": 2})
    )
    follower = await service.create(model(project_id, "m", prices, trackNewest=True))
    subscription = await listen(service.nats, "optaic.*.instance.v1.updated.*")
    strict = {"type": "object", "maxProperties": 0}
    await publish(service, "halves", "2.0.0", parametersSchema=strict)
    updated = [await subscription.next_msg(timeout=30) for _ in trackers]
    assert {message.subject.rpartition(".")[2] for message in updated} == {
        tracker.instance_id for tracker in trackers
    }
    for tracker in trackers:
        found = await service.until_active(tracker.instance_id)
        assert (found.definition_version, found.revision) == ("2.0.0", 2)
    for other in (misfit, follower):
        found = await service.until_active(other.instance_id)
        assert (found.definition_version, found.revision) == ("1.0.0", 1)


async def test_an_instance_that_cannot_move_is_changed_by_giving_the_whole_reference(
    service: RunningInstanceService,
) -> None:
    await publish(service, "linear", compatibilityRules=[{"role": "features", "minCount": 1}])
    project_id = (await service.project()).project_id
    prices = (await service.prices(project_id)).instance_id
    given = model(project_id, "m", prices, trackNewest=True)
    made = await service.create(given)
    await publish(service, "linear", "2.0.0", compatibilityRules=[{"role": "features", "minCount": 5}])
    await service.until(made.instance_id, lambda found: found.conditions)
    as_read = {"definitionId": made.definition_id, "definitionVersion": "1.0.0"}
    by_id = {"definitionVersionId": made.definition_version_id}
    names = "definition_name,track_newest,config,labels"
    for number, (more, mask) in enumerate([({}, "*"), (as_read, "*"), (by_id, "*"), ({}, names)]):
        labels = {"number": str(number)}
        anew = {**given, **more, "labels": labels}
        changed = await service.update(made.instance_id, anew, *mask.split(","))
        assert (changed.revision, changed.definition_version) == (2 + number, "1.0.0")
        assert dict(changed.labels) == labels
        assert changed.definition_id == made.definition_id
        assert [condition.reason for condition in changed.conditions] == ["NewestDoesNotFit"]
    other = await refusal(service.update(made.instance_id, {**given, "config": {"alpha": 2}}, "*"))
    assert "instance.upstream_refs" in other.fields


async def test_a_tracking_reference_to_a_version_above_the_newest_is_refused(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id
    pipeline = {"definitionName": "sp500_prices", "trackNewest": True, "definitionVersion": "9.9.9"}
    given = {"projectId": project_id, "name": "d", "dataset": {"pipeline": pipeline}}
    refused = await refusal(service.create(given))
    assert refused.field_reasons == {"instance.dataset.pipeline.definition_version": "INVALID_SPEC"}
    del pipeline["definitionVersion"]
    made = await service.create(given)
    version = made.dataset.pipeline.definition_version
    path = "dataset.pipeline.definition_version"
    for number in ("7.7.7", version):
        update = service.update(
            made.instance_id, {"dataset": {"pipeline": {"definitionVersion": number}}}, path
        )
        if number == version:
            assert (await update).revision == 1
        else:
            refused = await refusal(update)
            assert refused.field_reasons == {f"instance.{path}": "INVALID_SPEC"}
    pipeline["definitionVersionId"] = project_id
    refused = await refusal(service.update(made.instance_id, given, "dataset.pipeline"))
    assert refused.field_reasons == {"instance.dataset.pipeline.definition_version_id": "INVALID_SPEC"}
    pipeline["definitionVersionId"] = made.dataset.pipeline.definition_version_id
    assert (await service.update(made.instance_id, given, "dataset.pipeline")).revision == 1


async def test_a_version_read_earlier_may_be_sent_back_while_track_newest_is_set(
    service: RunningInstanceService,
) -> None:
    first = await publish(service, "linear", "1.0.0")
    project_id = (await service.project()).project_id
    prices = (await service.prices(project_id)).instance_id
    made = await service.until_active(
        (await service.create(model(project_id, "m", prices, trackNewest=True))).instance_id
    )
    read = json_format.MessageToDict(made, preserving_proto_field_name=True)
    second = await publish(service, "linear", "2.0.0")
    await service.until(made.instance_id, lambda found: found.definition_version == "2.0.0")
    # Read, modify, write; and a copy.
    anew = ("definition_id", "definition_version_id", "definition_version", "track_newest", "config", "owner")
    for owner, paths in (("ada", ["*"]), ("bob", anew)):
        changed = await service.update(made.instance_id, {**read, "etag": "", "owner": owner}, *paths)
        assert (changed.owner, changed.definition_version) == (owner, "2.0.0")
        assert changed.definition_version_id == second.definition_version_id
    copy = await service.create({**read, "name": "copy"})
    assert copy.definition_version_id == second.definition_version_id
    # What was not read, or is asked for by itself.
    await publish(service, "linear", "3.0.0-rc.1", draft=True)
    other = await publish(service, "halves")
    number, by_id = "definition_version", "definition_version_id"
    for name, value, mask in (
        (number, "3.0.0-rc.1", "*"),
        (number, "9.9.9", "*"),
        (by_id, other.definition_version_id, "*"),
        (number, "1.0.0", number),
        (by_id, first.definition_version_id, by_id),
    ):
        refused = await refusal(service.update(made.instance_id, {**read, "etag": "", name: value}, mask))
        path = f"instance.{name}"
        assert refused.field_reasons == {path: "INVALID_SPEC"}
        assert "omit it, or reload the instance" in refused.fields[path]


async def test_a_replaced_pipeline_must_name_its_definition_while_it_tracks_the_newest_version(
    service: RunningInstanceService,
) -> None:
    made = await service.prices((await service.project()).project_id)
    follow = {"dataset": {"pipeline": {"trackNewest": True}}}
    made = await service.update(made.instance_id, follow, "dataset.pipeline.track_newest")
    anew: dict[str, Any] = {"trackNewest": True, "config": {"as_of": "2021-12-31"}}
    for more in ({}, {"definitionVersion": made.dataset.pipeline.definition_version}):
        given: dict[str, Any] = {"dataset": {"pipeline": {**anew, **more}}}
        refused = await refusal(service.update(made.instance_id, given, "dataset"))
        assert refused.field_reasons == {"instance.dataset.pipeline": "INVALID_SPEC"}
    by_id = {"definitionVersionId": made.dataset.pipeline.definition_version_id}
    given = {"dataset": {"pipeline": {**anew, **by_id}}, "owner": "ada"}
    changed = await service.update(made.instance_id, given, "dataset", "owner")
    assert (changed.owner, changed.dataset) == ("ada", made.dataset)
    assert "FollowsNewest" not in [condition.type for condition in changed.conditions]


async def test_the_macro_versions_of_a_caller_are_ignored(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    stray = {"A": project_id}
    pipeline = {"definitionName": "sp500_prices", "macroVersionIds": stray}
    given = {
        "projectId": project_id,
        "name": "d",
        "macroVersionIds": stray,
        "dataset": {"pipeline": pipeline},
    }
    made = await service.create(given)
    assert not made.macro_version_ids
    assert not made.dataset.pipeline.macro_version_ids


async def test_an_accepted_config_stays_valid_until_it_is_changed(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await service.project()
    schema = {"properties": {"host": {"type": "string", "format": "hostname"}, "n": {"multipleOf": 0.01}}}
    content = {"version": "1.0.0", "code_ref": "a.b:C", "parameters_schema": schema}
    request = PublishDefinitionRequest(kind=DEFINITION_KIND_PIPELINE, name="remote")
    json_format.ParseDict(content, request.definition_version)
    await service.definitions.PublishDefinition(request)
    given = {"definitionName": "remote", "config": {"host": "-bad-", "n": 4.02}}
    with monkeypatch.context() as earlier:  # a release that did not check this format
        earlier.delitem(jsonschema_adapter._formats.checkers, "hostname")
        made = await service.create(
            {"projectId": project.project_id, "name": "a", "dataset": {"pipeline": given}}
        )
    changed = await service.update(made.instance_id, {"description": "x"}, "description")
    assert changed.revision == 2
    refused = await refusal(
        service.update(
            made.instance_id,
            {"dataset": {"pipeline": {"config": {"host": "-bad-", "n": 0.29}}}},
            "dataset.pipeline.config",
        )
    )
    assert list(refused.fields) == ["instance.dataset.pipeline.config.host"]
