"""Operators of other packages: published with their arguments, meant by name in expressions, pinned like macros."""

from typing import Any

import pytest
from google.protobuf import json_format

from instance_service.resources.definitions import macros, operators
from instance_service.resources.definitions.library import load_macros
from instance_service.resources.definitions.macros import Calls, library_of, names_called
from instance_service.use_cases.definitions.plugins import publish_plugins
from instance_service.use_cases.definitions.publication import publish_definition
from optaic.definition.v1.definition_pb2 import (
    COMPATIBILITY_BREAKING,
    COMPATIBILITY_COMPATIBLE,
    DEFINITION_KIND_OP,
    DefinitionVersion,
)
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.expression import FIRST_OPERATORS, OPERATORS, parse
from optaic.instance.v1.instance_pb2 import Instance
from servicekit.context import RequestContext, new_traceparent
from support.instance_service import RunningInstanceService, derived, refusal

_EXPRESSION = "instance.dataset.pipeline.config.expression"
_PROPERTIES = "definition_version.parameters_schema.properties"
_N = {"type": "integer", "minimum": 1, "maximum": 100}
_P = {"type": "number", "minimum": 0, "default": 0.5}


async def publish(
    service: RunningInstanceService,
    name: str = "TILT",
    version: str = "1.0.0",
    numbers: dict[str, Any] | None = None,
    kind: int = DEFINITION_KIND_OP,
    **fields: Any,
) -> DefinitionVersion:
    numbers = {} if numbers is None else numbers
    given: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "definitionVersion": {
            "version": version,
            "codeRef": "elsewhere.operators:Tilt",
            "op": {"values": ["x"], "numbers": list(numbers)},
            "parametersSchema": {"properties": numbers},
            **fields,
        },
    }
    found: DefinitionVersion = await service.definitions.PublishDefinition(
        json_format.ParseDict(given, PublishDefinitionRequest())
    )
    return found


def using(project_id: str, expression: str, prices: str, name: str = "derived") -> dict[str, Any]:
    given = derived(project_id, name, prices)
    given["dataset"]["pipeline"]["config"]["expression"] = expression
    return given


def pins(instance: Instance) -> dict[str, str]:
    return dict(instance.dataset.pipeline.macro_version_ids)


async def _prices(service: RunningInstanceService) -> tuple[str, str]:
    project_id = (await service.project()).project_id
    return project_id, (await service.prices(project_id)).instance_id


async def test_an_operator_is_called_by_name_and_pinned(service: RunningInstanceService) -> None:
    said = {"title": "n", "description": "sessions", "examples": [3], "x-widget": "slider"}
    first = await publish(service, numbers={"n": {**_N, **said}, "p": _P})
    project_id, prices = await _prices(service)
    created = await service.create(using(project_id, "tilt(close, 3) + TILT(RANK(close), 3, 1)", prices))
    assert pins(created) == {"TILT": first.definition_version_id}
    second = await publish(service, numbers={"n": _N, "p": _P}, version="1.1.0", codeRef="elsewhere.new:Tilt")
    labelled = await service.update(created.instance_id, {"labels": {"a": "b"}}, "labels")
    assert pins(labelled) == pins(created)
    assert labelled.flows[0].compute_fingerprint == created.flows[0].compute_fingerprint
    same = using(project_id, "tilt(close, 3) + TILT(RANK(close), 3, 1)", prices, "same")
    newer = await service.create(same)
    assert pins(newer) == {"TILT": second.definition_version_id}
    assert newer.flows[0].compute_fingerprint != created.flows[0].compute_fingerprint


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("1 + TILT(close, 0)", "between 1 and 100"),
        ("1 + TILT(close)", "needs 2 arguments"),
        ("1 + TILT(close, 1, 2, 3)", "too many arguments"),
        ("1 + TILT(close, close)", "must be a number"),
        ("1 + TILTED(close)", "unknown operator"),
    ],
)
async def test_a_mistaken_call_is_refused(
    service: RunningInstanceService, expression: str, said: str
) -> None:
    await publish(service, numbers={"n": _N, "p": _P})
    project_id, prices = await _prices(service)
    refused = await refusal(service.create(using(project_id, expression, prices)))
    assert refused.reason == "INVALID_EXPRESSION"
    assert said in refused.fields[_EXPRESSION]


async def test_macros_may_call_operators(service: RunningInstanceService) -> None:
    operator = await publish(service, numbers={"n": _N})
    request = PublishDefinitionRequest()
    macro = {"parameters": ["x"], "expression": "TILT(x, 3) * 2"}
    given = {"name": "OUTER", "kind": "DEFINITION_KIND_OP_MACRO"}
    json_format.ParseDict({**given, "definitionVersion": {"version": "1.0.0", "opMacro": macro}}, request)
    outer = await service.definitions.PublishDefinition(request)
    project_id, prices = await _prices(service)
    created = await service.create(using(project_id, "OUTER(close)", prices))
    assert pins(created) == {
        "OUTER": outer.definition_version_id,
        "TILT": operator.definition_version_id,
    }
    request.definition_version.version = "2.0.0"
    request.definition_version.op_macro.expression = "TILT(x, 101)"
    refused = await refusal(service.definitions.PublishDefinition(request))
    assert "between 1 and 100" in refused.fields["definition_version.op_macro.expression"]


async def test_a_tracking_instance_moves_with_the_operators_that_it_calls(
    service: RunningInstanceService,
) -> None:
    await publish(service, numbers={"n": _N})
    project_id, prices = await _prices(service)
    given = using(project_id, "TILT(close, 3)", prices)
    given["dataset"]["pipeline"]["trackNewest"] = True
    following = await service.create(given)
    await service.until_active(following.instance_id)
    newer = await publish(service, version="1.1.0", numbers={"n": {**_N, "maximum": 50}})
    (tracking,) = newer.publication_report.tracking_instances
    assert (tracking.name, list(tracking.violations)) == ("derived", [])
    assert [change.path for change in newer.publication_report.schema_changes] == [
        "/parameters_schema/properties/n/maximum"
    ]
    moved = await service.until(following.instance_id, lambda found: found.revision == 2)
    assert pins(moved) == {"TILT": newer.definition_version_id}
    assert moved.flows[0].fingerprint_change == "operator TILT moved to version 1.1.0"
    broken = await publish(service, version="2.0.0", numbers={"n": {**_N, "maximum": 2}})
    (tracking,) = broken.publication_report.tracking_instances
    assert "between 1 and 2" in tracking.violations[0]
    longer = await publish(service, version="3.0.0", numbers={"n": _N, "m": _N})
    (change,) = [one for one in longer.publication_report.schema_changes if one.path == "/op"]
    assert (change.description, change.compatibility) == (
        "called TILT(x, n, m), no longer TILT(x, n)",
        COMPATIBILITY_BREAKING,
    )
    assert (
        "needs 3 arguments" in longer.publication_report.tracking_instances[0].violations[0]
    )  # TILT(close, 3)
    optional = await publish(service, version="4.0.0", numbers={"n": _N, "m": _N, "p": _P})
    (change,) = [one for one in optional.publication_report.schema_changes if one.path == "/op"]
    assert change.compatibility == COMPATIBILITY_COMPATIBLE
    required = await publish(service, version="5.0.0", numbers={"n": _N, "m": _N, "p": {"type": "number"}})
    (change,) = [one for one in required.publication_report.schema_changes if one.path == "/op"]
    assert (change.description, change.compatibility) == (
        "called TILT(x, n, m, p), no longer TILT(x, n, m, p=0.5)",
        COMPATIBILITY_BREAKING,
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"op": None}, "definition_version.op"),
        ({"name": "tilt"}, "name"),
        ({"name": "RANK"}, "name"),
        ({"name": "MOMENTUM"}, "name"),
        ({"op": {"numbers": ["n"]}, "numbers": {"n": _N}}, "definition_version.op.values"),
        (
            {"op": {"values": ["n"], "numbers": ["n"]}, "numbers": {"n": _N}},
            "definition_version.op.numbers[0]",
        ),
        ({"op": {"values": ["x"], "numbers": ["n"]}}, "definition_version.op.numbers[0]"),
        ({"numbers": {"n": {"type": "string"}}}, "definition_version.op.numbers[0]"),
        ({"numbers": {"n": {"type": ["integer", "null"]}}}, "definition_version.op.numbers[0]"),
        ({"numbers": {"n": {"type": {}}}}, "definition_version.op.numbers[0]"),
        ({"numbers": {"p": _P, "n": _N}}, "definition_version.op.numbers[1]"),
        ({"numbers": {"n": {**_N, "default": 0}}}, f"{_PROPERTIES}.n.default"),
        ({"numbers": {"n": {**_N, "default": "x"}}}, f"{_PROPERTIES}.n.default"),
        ({"numbers": {"n": {**_N, "default": True}}}, f"{_PROPERTIES}.n.default"),
        ({"numbers": {"n": {**_N, "minimum": 101}}}, f"{_PROPERTIES}.n.minimum"),
        ({"numbers": {"p": {**_P, "exclusiveMinimum": 0}}}, f"{_PROPERTIES}.p.exclusiveMinimum"),
        ({"numbers": {"n": {**_N, "enum": [1, 2]}}}, f"{_PROPERTIES}.n.enum"),
        ({"numbers": {"n": {**_N, "allOf": [{"maximum": 3}]}}}, f"{_PROPERTIES}.n.allOf"),
        ({"codeRef": ""}, "definition_version.code_ref"),
    ],
)
async def test_an_operator_that_nothing_could_call_is_not_published(
    service: RunningInstanceService, changes: dict[str, Any], field: str
) -> None:
    before = await service.row_counts()
    refused = await refusal(publish(service, **changes))
    assert field in refused.fields, refused
    assert await service.row_counts() == before


async def test_only_operators_have_arguments(service: RunningInstanceService) -> None:
    refused = await refusal(publish(service, kind=1))
    assert list(refused.fields) == ["definition_version.op"]


async def test_names_that_became_operators_later_keep_the_meaning_that_a_tenant_gave_them(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, deps = "older", service.app.deps
    context = RequestContext(tenant, "somebody", deps.ids(), new_traceparent())
    own = {
        "CLIP": {
            "kind": "DEFINITION_KIND_OP_MACRO",
            "opMacro": {"parameters": ["x"], "expression": "MEDIAN(x)"},
        },
        "MEDIAN": {
            "kind": "DEFINITION_KIND_OP",
            "op": {"values": ["x"]},
            "codeRef": "elsewhere.operators:Median",
        },
    }
    published = {}
    with monkeypatch.context() as before:
        first = {name: OPERATORS[name] for name in FIRST_OPERATORS}
        for module in (operators, macros):
            before.setattr(module, "OPERATORS", first)
        for name in ("MEDIAN", "CLIP"):
            version = dict(own[name])
            given = {
                "name": name,
                "kind": version.pop("kind"),
                "definitionVersion": {"version": "0.9.0", **version},
            }
            request = json_format.ParseDict(given, PublishDefinitionRequest())
            published[name] = await publish_definition(deps, context, request, is_reported=False)
    await publish_plugins(deps, (tenant,))  # the operators of this release, CLIP and MEDIAN among them
    calls = Calls(names_called(["CLIP(close) + COUNT(close, 5) + MEAN(close, 3)"]), {}, follows=True)
    async with deps.database.read(tenant) as connection:
        (found,) = await load_macros(connection, tenant, [calls])
    ids = {name: version.definition_version_id for name, version in found.items()}
    assert ids == {name: version.definition_version_id for name, version in published.items()}
    signatures, callable_macros = library_of(found)
    expression = parse("CLIP(close) + COUNT(close, 5)", signatures, callable_macros)
    assert expression == parse("MEDIAN(close) + COUNT(close, 5)", signatures)
