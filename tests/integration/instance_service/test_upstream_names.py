"""Names of upstreams in expressions: quoted, bound to an upstream's id, changed by its renaming; columns that exist."""

import asyncio
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask

from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import (
    CreateInstanceRequest,
    GetInstanceRequest,
    ListInstanceRevisionsRequest,
    UpdateInstanceRequest,
)
from optaic.run.v1.run_events_pb2 import RunCompleted
from optaic.run.v1.run_pb2 import ColumnProfile, OutputProfile, Run
from servicekit.clock import SystemClock
from servicekit.events import headers_of, make_event
from servicekit.ids import new_id
from support.instance_service import TENANT, RunningInstanceService, derived, refusal
from support.polling import eventually

_EXPRESSION = "instance.dataset.pipeline.config.expression"
_CONFIG = "dataset.pipeline.config"


def reading(project_id: str, expression: str, *upstreams: Instance, name: str = "reader") -> dict[str, Any]:
    given = derived(project_id, name, *(upstream.instance_id for upstream in upstreams))
    given["dataset"]["pipeline"]["config"]["expression"] = expression
    return given


def text_of(instance: Instance) -> str:
    return str(instance.dataset.pipeline.config["expression"])


async def get(service: RunningInstanceService, instance: Instance, revision: int = 0) -> Instance:
    request = GetInstanceRequest(instance_id=instance.instance_id, revision=revision)
    found: Instance = await service.instances.GetInstance(request)
    return found


async def rename(service: RunningInstanceService, instance: Instance, name: str) -> None:
    await service.update(instance.instance_id, {"name": name}, "name")


async def test_a_renaming_changes_the_text_and_nothing_else(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    one, two = [await service.prices(project_id, name) for name in ("a", "b")]
    reader = await service.create(reading(project_id, "a.close - b.close", one, two))
    await rename(service, one, "sig-a")
    found = await get(service, reader)
    assert text_of(found) == '"sig-a".close - b.close'
    assert [(ref.name, ref.bound_name) for ref in found.upstream_refs] == [("sig-a", "a"), ("b", "b")]
    assert (found.revision, found.etag) == (reader.revision, reader.etag)
    assert found.flows[0].compute_fingerprint == reader.flows[0].compute_fingerprint
    # The worker reads the instance at its revision: texts and names belong together there, too.
    at_revision = await get(service, reader, reader.revision)
    assert text_of(at_revision) == text_of(found)
    assert at_revision.upstream_refs[0].name == "sig-a"
    pipeline = await service.instances.GetInstance(
        GetInstanceRequest(instance_id=reader.dataset.pipeline_instance_id)
    )
    assert pipeline.config["expression"] == text_of(found)


async def test_two_names_that_are_swapped_keep_their_meaning(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    one, two = [await service.prices(project_id, name) for name in ("a", "b")]
    reader = await service.create(reading(project_id, "a.close - b.close", one, two))
    for instance, name in ((one, "c"), (two, "a"), (one, "b")):
        await rename(service, instance, name)
    found = await get(service, reader)
    assert text_of(found) == "b.close - a.close"
    assert {ref.resource_id: ref.name for ref in found.upstream_refs} == {
        one.instance_id: "b",
        two.instance_id: "a",
    }
    labelled = await service.update(reader.instance_id, {"labels": {"x": "y"}}, "labels")
    assert labelled.flows[0].compute_fingerprint == reader.flows[0].compute_fingerprint
    # What is written anew says what is meant now.
    again = reading(project_id, "b.close - a.close", one, two)
    written = await service.update(reader.instance_id, again, _CONFIG)
    assert written.flows[0].compute_fingerprint == reader.flows[0].compute_fingerprint
    turned = reading(project_id, "a.close - b.close", one, two)
    written = await service.update(reader.instance_id, turned, _CONFIG)
    assert written.flows[0].compute_fingerprint != reader.flows[0].compute_fingerprint


async def test_a_new_upstream_does_not_take_over_the_name_that_another_had(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id
    one = await service.prices(project_id, "a")
    reader = await service.create(reading(project_id, "a.close", one))
    await rename(service, one, "b")
    other = await service.prices(project_id, "a")
    given = reading(project_id, "b.close - a.close", one, other)
    changed = await service.update(reader.instance_id, given, _CONFIG, "upstream_refs")
    bound = {ref.resource_id: ref.bound_name for ref in changed.upstream_refs}
    assert bound == {one.instance_id: "a", other.instance_id: other.instance_id}


async def test_a_name_shared_by_two_upstreams_of_one_expression_is_refused(
    service: RunningInstanceService,
) -> None:
    here, there = [(await service.project(name)).project_id for name in ("here", "there")]
    one, two = await service.prices(here, "a"), await service.prices(there, "b")
    reader = await service.create(reading(here, "a.close - b.close", one, two))
    unnamed = await service.create(reading(there, "close", one, two, name="unnamed"))
    found = await refusal(service.update(two.instance_id, {"name": "a"}, "name"))
    assert (found.reason, found.field_reasons) == ("NAME_TAKEN", {"instance.name": "NAME_TAKEN"})
    assert "reader depends on another instance named a too" in found.message
    assert text_of(await get(service, reader)) == "a.close - b.close"
    assert (await get(service, two)).name == "b"
    # Where no text names either, there is nothing to mix up.
    changed = reading(here, "close", one, two)
    await service.update(reader.instance_id, changed, _CONFIG)
    await rename(service, two, "a")
    assert [ref.name for ref in (await get(service, unnamed)).upstream_refs] == ["a", "a"]


async def test_an_expression_that_names_no_upstream_is_unchanged_by_a_rename(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id, "close")
    reader = await service.create(reading(project_id, "close * 2", prices))
    await rename(service, prices, "open")
    found = await get(service, reader)
    assert text_of(found) == "close * 2"
    revisions = await service.instances.ListInstanceRevisions(
        ListInstanceRevisionsRequest(instance_id=reader.instance_id)
    )
    assert len(revisions.revisions) == 1


async def test_an_update_without_a_change_makes_no_revision(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id, "a")
    reader = await service.create(reading(project_id, "a.close", prices))
    await rename(service, prices, "b")
    given = reading(project_id, "b.close", prices)
    same = await service.update(reader.instance_id, given, _CONFIG, "upstream_refs")
    assert same.revision == reader.revision
    # Names are output: what a client says of them counts for nothing.
    echoed = json_format.MessageToDict(await get(service, reader))
    echoed["upstreamRefs"][0]["name"] = "nonsense"
    same = await service.update(reader.instance_id, echoed, "upstream_refs")
    assert (same.revision, same.upstream_refs[0].name) == (reader.revision, "b")


async def told(service: RunningInstanceService, instance: Instance, *columns: str) -> Instance:
    """Tell of a run whose output has these columns."""
    profile = OutputProfile(
        row_count=1, columns=[ColumnProfile(name=name) for name in ("date", "entity", *columns)]
    )
    run = Run(run_id=new_id(), instance_id=instance.instance_id, flow_kind=FLOW_KIND_REFRESH, run_number=1)
    run.compute_fingerprint = instance.flows[0].compute_fingerprint
    run.pipeline.output_profile.CopyFrom(profile)
    await service.publish_run(run)

    async def is_known() -> bool:
        return (await service.row_counts("outputs"))["outputs"] > 0

    await eventually(is_known)
    return instance


@pytest.mark.parametrize("is_update", [False, True], ids=["create", "update"])
async def test_a_column_of_a_run_that_the_caller_has_seen_is_known(
    service: RunningInstanceService, *, is_update: bool
) -> None:
    """The event of the run arrives while the call waits for it."""
    project_id = (await service.project()).project_id
    prices = await told(service, await service.prices(project_id, "prices"), "close")
    reader = await service.create(reading(project_id, "close", prices))
    run = Run(run_id=new_id(), instance_id=prices.instance_id, flow_kind=FLOW_KIND_REFRESH, run_number=2)
    run.compute_fingerprint = prices.flows[0].compute_fingerprint
    columns = [ColumnProfile(name=name) for name in ("date", "entity", "close", "volume")]
    run.pipeline.output_profile.CopyFrom(OutputProfile(row_count=1, columns=columns))
    event = make_event(
        "run", TENANT, RunCompleted(run=run), "completed", run.instance_id, SystemClock(), new_id
    )
    seen = (("optaic-read-tokens", event.token),)
    given = json_format.ParseDict(reading(project_id, "volume", prices, name="second"), Instance())
    if is_update:
        given.instance_id, given.name = reader.instance_id, reader.name
        mask = FieldMask(paths=[_CONFIG])
        request = UpdateInstanceRequest(instance=given, update_mask=mask)
        call = service.instances.UpdateInstance(request, metadata=seen)
    else:
        call = service.instances.CreateInstance(CreateInstanceRequest(instance=given), metadata=seen)
    waiting = asyncio.ensure_future(call)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.3)
    await service.nats.jetstream().publish(event.subject, event.payload, headers=headers_of(event))
    assert text_of(await waiting) == "volume"


async def test_an_unknown_column_is_refused_if_the_columns_of_the_upstreams_are_known(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id
    prices = await told(service, await service.prices(project_id, "sig-a"), "close", "Volume")
    for expression in ("close", '"sig-a".close', '"Volume" / "sig-a"."Volume"', "MEAN(close, 5)"):
        await service.create(reading(project_id, expression, prices), validate_only=True)
    for expression, said in (
        ("clse", "unknown column 'clse'; did you mean close"),
        ('MEAN("sig-a".open, 5)', "unknown column '\"sig-a\".open'"),
        ("volume", "unknown column 'volume'"),
        ("sig-a.close", "unknown column 'sig'"),
    ):
        refused = await refusal(service.create(reading(project_id, expression, prices)))
        assert refused.reason == "INVALID_EXPRESSION", expression
        assert said in refused.fields[_EXPRESSION], expression


async def test_only_columns_of_upstreams_with_known_columns_are_checked(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id
    known = await told(service, await service.prices(project_id, "known"), "close")
    unknown = await service.prices(project_id, "unknown")
    for expression in ("unknown.open", "open", "known.close"):
        await service.create(reading(project_id, expression, known, unknown), validate_only=True)
    refused = await refusal(service.create(reading(project_id, "known.open", known, unknown)))
    assert "known.open" in refused.fields[_EXPRESSION]


async def test_upstreams_with_equal_names_are_reported_if_an_expression_means_one_of_them(
    service: RunningInstanceService,
) -> None:
    """Two projects can have instances of one name; whether their columns are known makes no difference."""
    here, there = [(await service.project(name)).project_id for name in ("here", "there")]
    one, two = await service.prices(here, "p"), await service.prices(there, "p")
    for expression in ("p.close", "p.close - p.open"):
        refused = await refusal(service.create(reading(here, expression, one, two)))
        said = refused.fields[_EXPRESSION]
        assert "several inputs are named 'p' (" in said
        assert one.instance_id in said
        assert two.instance_id in said
        assert "rename all but one of these instances" in said
    await service.create(reading(here, "close", one, two), validate_only=True)


@pytest.mark.parametrize("is_moved", [False, True])
async def test_an_output_of_another_configuration_does_not_define_the_columns(
    service: RunningInstanceService, *, is_moved: bool
) -> None:
    project_id = (await service.project()).project_id
    prices = await told(service, await service.prices(project_id, "p"), "close")
    if is_moved:
        config = {"dataset": {"pipeline": {"config": {"as_of": "2022-12-30"}}}}
        await service.update(prices.instance_id, config, _CONFIG)
    call = service.create(reading(project_id, "other", prices), validate_only=True)
    if is_moved:
        await call
    else:
        assert (await refusal(call)).reason == "INVALID_EXPRESSION"


async def test_an_accepted_instance_can_be_changed_after_its_column_vanished(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id, "p")
    reader = await service.create(reading(project_id, "old", prices))
    await told(service, prices, "close")
    labelled = await service.update(reader.instance_id, {"labels": {"x": "y"}}, "labels")
    assert labelled.revision == reader.revision + 1
