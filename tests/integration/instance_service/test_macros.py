"""Macros: published as definitions, meant by name in expressions, pinned by the instances that use them."""

from typing import Any

import pytest
from google.protobuf import json_format

from optaic.definition.v1.definition_pb2 import (
    DEFINITION_KIND_OP_MACRO,
    DEFINITION_STATE_DRAFT,
    DefinitionVersion,
)
from optaic.definition.v1.definition_service_pb2 import (
    ActivateDefinitionVersionRequest,
    DeprecateDefinitionVersionRequest,
    GetDefinitionVersionRequest,
    PublishDefinitionRequest,
)
from optaic.instance.v1.instance_pb2 import Instance
from support.instance_service import RunningInstanceService, derived, refusal

_EXPRESSION = "instance.dataset.pipeline.config.expression"
_CONFIG = "dataset.pipeline.config"


async def publish(
    service: RunningInstanceService,
    name: str,
    expression: str,
    *parameters: str,
    version: str = "1.0.0",
    draft: bool = False,
    **fields: Any,
) -> DefinitionVersion:
    given: dict[str, Any] = {
        "name": name,
        "draft": draft,
        "kind": DEFINITION_KIND_OP_MACRO,
        "definitionVersion": {
            "version": version,
            "opMacro": {"parameters": list(parameters), "expression": expression},
            **fields,
        },
    }
    found: DefinitionVersion = await service.definitions.PublishDefinition(
        json_format.ParseDict(given, PublishDefinitionRequest())
    )
    return found


def using(project_id: str, expression: str, *upstreams: str, name: str = "derived") -> dict[str, Any]:
    given = derived(project_id, name, *upstreams)
    given["dataset"]["pipeline"]["config"]["expression"] = expression
    return given


def pins(instance: Instance) -> dict[str, str]:
    return dict(instance.dataset.pipeline.macro_version_ids)


async def _prices(service: RunningInstanceService) -> tuple[str, str]:
    project_id = (await service.project()).project_id
    return project_id, (await service.prices(project_id)).instance_id


async def test_the_built_in_macros_can_be_called(service: RunningInstanceService) -> None:
    project_id, prices = await _prices(service)
    created = await service.create(using(project_id, "momentum(close, 252, 21) + RANK(close)", prices))
    assert list(pins(created)) == ["MOMENTUM"]


async def test_macros_within_macros_are_pinned_too(service: RunningInstanceService) -> None:
    inner = await publish(service, "INNER", "x * 2", "x")
    outer = await publish(service, "OUTER", "INNER(x) + n", "x", "n")
    project_id, prices = await _prices(service)
    created = await service.create(using(project_id, "OUTER(close, 3)", prices))
    assert pins(created) == {
        "OUTER": outer.definition_version_id,
        "INNER": inner.definition_version_id,
    }


async def test_an_instance_keeps_its_macros_until_its_configuration_is_written_again(
    service: RunningInstanceService,
) -> None:
    first = await publish(service, "DOUBLE", "x * 2", "x")
    project_id, prices = await _prices(service)
    created = await service.create(using(project_id, "DOUBLE(close)", prices))
    second = await publish(service, "DOUBLE", "x + x", "x", version="1.1.0")
    labelled = await service.update(created.instance_id, {"labels": {"a": "b"}}, "labels")
    assert pins(labelled) == {"DOUBLE": first.definition_version_id}
    assert labelled.flows[0].compute_fingerprint == created.flows[0].compute_fingerprint
    config = using(project_id, "DOUBLE(close) + 0", prices)
    rewritten = await service.update(created.instance_id, config, _CONFIG)
    assert pins(rewritten) == {"DOUBLE": second.definition_version_id}
    without = await service.update(created.instance_id, using(project_id, "close", prices), _CONFIG)
    assert not pins(without)


async def test_the_fingerprint_depends_on_the_expression_of_a_macro(service: RunningInstanceService) -> None:
    await publish(service, "DOUBLE", "x * 2", "x")
    project_id, prices = await _prices(service)
    created = await service.create(using(project_id, "DOUBLE(close)", prices))
    await publish(service, "DOUBLE", "x * 3", "x", version="1.1.0")
    again = await service.create(using(project_id, "DOUBLE(close)", prices, name="again"))
    assert again.flows[0].compute_fingerprint != created.flows[0].compute_fingerprint


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("1 + NOPE(close)", "position 4"),
        ("1 + MOMENTUM(close, 252)", "position 4"),
        ("1 + MOMENTUM(close, close, 1)", "in MOMENTUM"),
    ],
)
async def test_a_mistaken_call_is_refused_at_its_position(
    service: RunningInstanceService, expression: str, said: str
) -> None:
    project_id, prices = await _prices(service)
    before = await service.row_counts()
    refused = await refusal(service.create(using(project_id, expression, prices)))
    assert refused.reason == "INVALID_EXPRESSION"
    assert said in refused.fields[_EXPRESSION]
    assert await service.row_counts() == before


async def test_a_draft_is_not_meant_by_its_name(service: RunningInstanceService) -> None:
    request = json_format.ParseDict(
        {
            "name": "DRAFTED",
            "kind": DEFINITION_KIND_OP_MACRO,
            "definitionVersion": {"version": "1.0.0", "opMacro": {"expression": "close"}},
            "draft": True,
        },
        PublishDefinitionRequest(),
    )
    await service.definitions.PublishDefinition(request)
    project_id, prices = await _prices(service)
    refused = await refusal(service.create(using(project_id, "DRAFTED()", prices)))
    assert refused.reason == "INVALID_EXPRESSION"


@pytest.mark.parametrize(
    ("name", "expression", "parameters", "field"),
    [
        ("A", "x +", ["x"], "definition_version.op_macro.expression"),
        ("A", "NOPE(x)", ["x"], "definition_version.op_macro.expression"),
        ("A", "A(x)", ["x"], "definition_version.op_macro.expression"),
        ("lower", "1", [], "name"),
        ("RANK", "1", [], "name"),
    ],
)
async def test_a_macro_that_nothing_could_use_is_not_published(
    service: RunningInstanceService, name: str, expression: str, parameters: list[str], field: str
) -> None:
    before = await service.row_counts()
    refused = await refusal(publish(service, name, expression, *parameters))
    assert refused.reason == "INVALID_EXPRESSION"
    assert field in refused.fields
    assert await service.row_counts() == before


async def test_a_cycle_of_two_macros_is_refused(service: RunningInstanceService) -> None:
    await publish(service, "ONE", "x", "x")
    await publish(service, "TWO", "ONE(x)", "x")
    refused = await refusal(publish(service, "ONE", "TWO(x)", "x", version="2.0.0"))
    assert "RECURSIVE_MACRO" in refused.fields["definition_version.op_macro.expression"]


async def test_a_draft_that_nothing_could_use_any_more_is_not_activated(
    service: RunningInstanceService,
) -> None:
    async def activate(draft: DefinitionVersion) -> DefinitionVersion:
        request = ActivateDefinitionVersionRequest(definition_version_id=draft.definition_version_id)
        activated: DefinitionVersion = await service.definitions.ActivateDefinitionVersion(request)
        return activated

    await publish(service, "ONE", "x", "x")
    await publish(service, "TWO", "x", "x")
    one = await publish(service, "ONE", "TWO(x)", "x", version="2.0.0", draft=True)
    two = await publish(service, "TWO", "ONE(x)", "x", version="2.0.0", draft=True)
    await activate(one)
    refused = await refusal(activate(two))
    assert refused.reason == "INVALID_EXPRESSION"
    assert "RECURSIVE_MACRO" in refused.fields["definition_version.op_macro.expression"]
    stored = GetDefinitionVersionRequest(definition_version_id=two.definition_version_id)
    assert (await service.definitions.GetDefinitionVersion(stored)).state == DEFINITION_STATE_DRAFT
    # What it calls takes another argument since it was published.
    outer = await publish(service, "OUTER", "TWO(x)", "x", draft=True)
    await publish(service, "TWO", "x + y", "x", "y", version="3.0.0")
    refused = await refusal(activate(outer))
    assert "WRONG_ARGUMENT_COUNT" in refused.fields["definition_version.op_macro.expression"]


async def test_a_macro_has_an_expression_and_no_code(service: RunningInstanceService) -> None:
    refused = await refusal(publish(service, "A", "1", codeRef="a.b:C"))
    assert "definition_version.code_ref" in refused.fields
    given = {"name": "A", "kind": DEFINITION_KIND_OP_MACRO, "definitionVersion": {"version": "1.0.0"}}
    request = json_format.ParseDict(given, PublishDefinitionRequest())
    refused = await refusal(service.definitions.PublishDefinition(request))
    assert "definition_version.op_macro" in refused.fields


async def test_a_tracking_instance_moves_with_the_macros_that_it_calls(
    service: RunningInstanceService,
) -> None:
    await publish(service, "INNER", "x * 2", "x")
    await publish(service, "OUTER", "INNER(x) + 1", "x")
    project_id, prices = await _prices(service)
    given = using(project_id, "OUTER(close)", prices, name="following")
    given["dataset"]["pipeline"]["trackNewest"] = True
    following = await service.create(given)
    pinned = await service.create(using(project_id, "OUTER(close)", prices, name="pinned"))
    await service.until_active(following.instance_id)
    report = await publish(service, "INNER", "x * 3", "x", version="1.1.0")
    assert [one.name for one in report.publication_report.tracking_instances] == ["following"]
    moved = await service.until(following.instance_id, lambda found: found.revision == 2)
    assert pins(moved) == {**pins(following), "INNER": report.definition_version_id}
    assert moved.flows[0].fingerprint_change == "macro INNER moved to version 1.1.0"
    assert moved.flows[0].compute_fingerprint != following.flows[0].compute_fingerprint
    assert pins(await service.until_active(pinned.instance_id)) == pins(pinned)
    # It never goes back, and does not follow what does not fit.
    await service.definitions.DeprecateDefinitionVersion(
        DeprecateDefinitionVersionRequest(definition_version_id=report.definition_version_id)
    )
    outdated = await service.until(following.instance_id, lambda found: found.conditions)
    assert (outdated.revision, pins(outdated)) == (2, pins(moved))
    assert outdated.conditions[0].message == "version 1.1.0 of INNER is deprecated"
    broken = await publish(service, "OUTER", "x + y", "x", "y", version="2.0.0")
    (tracking,) = broken.publication_report.tracking_instances
    assert tracking.violations[0].startswith(_EXPRESSION)
    stuck = await service.until(
        following.instance_id, lambda found: any(one.type == "FollowsNewest" for one in found.conditions)
    )
    assert (stuck.revision, pins(stuck)) == (2, pins(moved))
