"""Requests that are small and would cost much, if nothing bounded what they cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from support.fuzzing.world import World

_VALUES = 49_000
_LONG = "a_long_common_prefix_" * 40
_EXPRESSION = {"type": "string", "format": "optaic-expression", "maxLength": 10_000}


def _chain(length: int) -> dict[str, Any]:
    """Return a schema in which each part refers to the next one twice."""
    parts: dict[str, Any] = {"part_0": {"type": "number"}}
    for number in range(1, length):
        reference = {"$ref": f"#/$defs/part_{number - 1}"}
        parts[f"part_{number}"] = {"allOf": [reference, reference]}
    return {"$defs": parts, "properties": {"x": {"$ref": f"#/$defs/part_{length - 1}"}}}


def _x(**keywords: Any) -> dict[str, Any]:
    return {"properties": {"x": keywords}}


def _schemas() -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield a name, a schema and a value of its member `x`."""
    numbers = list(range(_VALUES))
    texts = "a" * 30_000 + "!"
    yield "all_of", _x(items={"allOf": [{"type": "number"}] * 900}), list(range(1_300))
    yield "any_of", _x(items={"anyOf": [{"const": number} for number in range(600)]}), [-1] * 1_300
    yield "pattern_nested", _x(pattern="^(a+)+$"), texts
    yield "pattern_alternatives", _x(pattern="^(a|a)*$"), texts
    yield "pattern_many", _x(pattern="a*a*a*a*a*a*b"), texts
    yield "pattern_items", _x(items={"pattern": "^(a|b)*c$"}), ["ab" * 50] * 2_000
    yield "pattern_names", _x(patternProperties={"^(a+)+$": {}}), {"a" * 900 + str(n): n for n in range(100)}
    large = [rf"\pL{{1,13}}x{number}" for number in range(2_000)]
    yield "pattern_sizes", _x(patternProperties={pattern: {} for pattern in large}), {"a" * 900: 1}
    yield "pattern_values", _x(items={"format": "regex"}), large
    yield "loop", _x(**{"$ref": "#/properties/x"}), 1
    yield (
        "circle",
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, **_x(**{"$ref": "#/$defs/a"})},
        1,
    )
    yield "tree", {"properties": {"x": {"type": "array", "items": {"$ref": "#/properties/x"}}}}, _deep(14)
    yield "doubling", _chain(30), 1
    yield "unique_numbers", _x(uniqueItems=True), numbers
    yield "unique_lists", _x(uniqueItems=True), [[number] for number in range(_VALUES // 2)]
    yield "unique_texts", _x(uniqueItems=True), [f"{_LONG}{number}" for number in range(500)]
    yield "contains", _x(contains={"const": -1}), numbers
    yield "contains_many", _x(contains={"enum": list(range(-1_000, 0))}), numbers
    yield (
        "dependent",
        _x(dependentSchemas={str(n): {"required": ["no"]} for n in range(1_000)}),
        {str(n): n for n in range(1_000)},
    )
    yield (
        "dependent_required",
        _x(dependentRequired={str(n): [str(m) for m in range(50)] for n in range(80)}),
        {str(n): n for n in range(80)},
    )
    yield (
        "names",
        _x(additionalProperties=False, properties={f"{_LONG}{n}": {} for n in range(60)}),
        {f"{_LONG}{n}x": n for n in range(500)},
    )
    yield "property_names", _x(propertyNames={"maxLength": 3}), {f"{_LONG}{n}": n for n in range(500)}
    yield "enum", _x(items={"enum": [f"{_LONG}{n}" for n in range(60)]}), [f"{_LONG}x"] * 500
    yield (
        "unevaluated",
        _x(anyOf=[{"properties": {str(n): {}}} for n in range(300)], unevaluatedProperties=False),
        {f"y{n}": n for n in range(3_000)},
    )
    yield "multiple", _x(items={"multipleOf": 1e-300}), numbers
    yield "not", _x(items={"not": {"not": {"not": {"type": "number"}}}}), numbers
    yield "if", _x(items={"if": {"type": "number"}, "then": {"type": "text"}}), numbers


def _deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value, value] if levels < 12 else [value]
    return value


def _expressions() -> Iterator[tuple[str, str]]:
    yield "terms", "close" + " + close" * 1_249
    yield "powers", "close" + " ** 9" * 1_900
    yield "brackets", "(" * 4_990 + "close" + ")" * 4_990
    yield "signs", "-" * 9_990 + "close"
    yield "calls", "ZSCORE(" * 1_200 + "close" + ")" * 1_200
    yield "comparisons", "close" + " < close" * 1_200
    yield "names", " + ".join(f"{'c' * 60}{number}" for number in range(150))
    yield "digits", "9" * 9_990
    yield "numbers", "close + 1e" + "9" * 9_900
    yield "text", "'" + "x" * 9_990
    yield "arguments", "ZSCORE(" + ", ".join(["close"] * 1_400) + ")"
    yield "dots", "close" + ".x" * 4_900


async def requests(world: World, *, is_full: bool) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    """Yield the name of a method, what the request is about, and the request."""
    world.tenant = "default"
    project = (await world.call("CreateProject", {"project": {"name": "costly"}})).project_id
    prices = (
        await world.call("CreateInstance", {"instance": _dataset(project, "prices", "sp500_prices", {})})
    ).instance_id
    for name, schema, value in _schemas():
        for request in _publications(f"c_{name}", schema, is_full=is_full):
            yield "PublishDefinition", name, request
        if not await _is_published(world, f"c_{name}", schema):
            continue
        given = _dataset(project, f"c_{name}", f"c_{name}", {"x": value})
        yield "CreateInstance", name, {"instance": given, "validateOnly": True}
        if is_full:
            yield "RehearseChanges", name, {"changes": [{"createInstance": {"instance": given}}] * 3}
    await _is_published(world, "c_expressions", _x(items=_EXPRESSION))
    for name, text in _expressions():
        derived = _dataset(project, f"e_{name}", "expression", {"expression": text})
        derived["upstreamRefs"] = [{"resourceId": prices, "role": "input"}]
        yield "CreateInstance", name, {"instance": derived, "validateOnly": True}
        macro = {"version": "1.0.0", "opMacro": {"parameters": ["close"], "expression": text}}
        publication = {
            "name": f"E_{name}".upper(),
            "kind": "DEFINITION_KIND_OP_MACRO",
            "definitionVersion": macro,
        }
        yield "PublishDefinition", name, {**publication, "validateOnly": True}
        if is_full:
            many = _dataset(project, f"m_{name}", "c_expressions", {"x": [text] * 40})
            yield "CreateInstance", f"40 times {name}", {"instance": many, "validateOnly": True}
    labels = {f"label_{number}": "v" for number in range(20_000)}
    yield "ListInstances", "a filter of 20,000 labels", {"labels": labels}
    yield "ListInstances", "a filter of 3,000 labels", {"labels": dict(list(labels.items())[:3_000])}
    for method, part in (("UpdateInstance", "instance"), ("UpdateProject", "project")):
        for count in (1_000, 6_000, 200_000):
            mask = ",".join(["description"] * count)
            yield method, f"a mask of {count} paths", {part: {f"{part}Id": prices}, "updateMask": mask}


def _publications(name: str, schema: dict[str, Any], *, is_full: bool) -> Iterator[dict[str, Any]]:
    yield {**_publication(name, schema), "validateOnly": True}
    if is_full:
        yield {**_publication(name, schema), "draft": True, "validateOnly": True}


def _publication(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    version = {
        "version": "1.0.0",
        "codeRef": "nowhere:Nothing",
        "parametersSchema": {"type": "object", **schema},
    }
    return {"name": name, "kind": "DEFINITION_KIND_PIPELINE", "definitionVersion": version}


async def _is_published(world: World, name: str, schema: dict[str, Any]) -> bool:
    """Publish a definition; return whether it was accepted."""
    try:
        await world.call("PublishDefinition", _publication(name, schema))
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error  # noqa: PT017 - most are accepted
        return False
    return True


def _dataset(project: str, name: str, definition: str, config: dict[str, Any]) -> dict[str, Any]:
    if definition == "sp500_prices":
        config = {"as_of": "2021-12-31"}
    pipeline = {"definitionName": definition, "config": config}
    return {"projectId": project, "name": name, "dataset": {"pipeline": pipeline}}
