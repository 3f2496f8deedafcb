"""What a new schema changes, and above all: what is called compatible refuses nothing that was valid."""

from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from instance_service.domain.schema_diff import diff

_OBJECT = {"type": "object", "additionalProperties": False}


def object_of(*required: str, **properties: Any) -> dict[str, Any]:
    return {**_OBJECT, "properties": properties, "required": list(required)}


def found(old: Any, new: Any) -> list[tuple[str, bool]]:
    return [(change.path, change.is_breaking) for change in diff(old, new)]


STRING, NUMBER = {"type": "string"}, {"type": "number"}


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ({}, {}, []),
        ({"title": "a"}, {"description": "b"}, []),
        (object_of(), object_of(a=STRING), [("/properties/a", False)]),
        (object_of(), object_of("a", a=STRING), [("/properties/a", False), ("/required", True)]),
        (object_of("a", a=STRING), object_of(a=STRING), [("/required", False)]),
        (object_of(a=STRING), object_of(), [("/properties/a", True)]),
        ({}, {"properties": {"a": STRING}}, [("/properties/a", True)]),
        ({}, {"properties": {"a": {}}}, [("/properties/a", False)]),
        ({"properties": {"a/b": STRING}}, {"properties": {"a/b": NUMBER}}, [("/properties/a~1b/type", False), ("/properties/a~1b/type", True)]),
        ({"type": "integer"}, {"type": "number"}, [("/type", False)]),
        ({"type": "number"}, {"type": "integer"}, [("/type", True)]),
        ({"type": ["string", "null"]}, {"type": "string"}, [("/type", True)]),
        ({"type": "string"}, {}, [("/type", False)]),
        ({"enum": [1, 2]}, {"enum": [1, 2, 3]}, [("/enum", False)]),
        ({"enum": [1, 2]}, {"enum": [2]}, [("/enum", True)]),
        ({"const": 1}, {"enum": [1, True]}, [("/enum", False)]),
        ({}, {"const": 1}, [("/const", True)]),
        ({"minimum": 1}, {"minimum": 2}, [("/minimum", True)]),
        ({"minimum": 2}, {"minimum": 1}, [("/minimum", False)]),
        ({"minimum": 2}, {"exclusiveMinimum": 2}, [("/exclusiveMinimum", True)]),
        ({"exclusiveMaximum": 2}, {"maximum": 2}, [("/maximum", False)]),
        ({"maxLength": 2}, {"maxLength": 1}, [("/maxLength", True)]),
        ({}, {"minItems": 0}, []),
        ({"multipleOf": 6}, {"multipleOf": 3}, [("/multipleOf", False)]),
        ({"multipleOf": 3}, {"multipleOf": 6}, [("/multipleOf", True)]),
        ({"pattern": "a"}, {"pattern": "b"}, [("/pattern", True)]),
        ({"pattern": "a"}, {}, [("/pattern", False)]),
        ({}, {"format": "date"}, [("/format", True)]),
        ({"additionalProperties": True}, {"additionalProperties": False}, [("/additionalProperties", True)]),
        ({"additionalProperties": False}, {}, [("/additionalProperties", False)]),
        ({"items": NUMBER}, {"items": {"type": "integer"}}, [("/items/type", True)]),
        ({"items": NUMBER}, {"prefixItems": [STRING], "items": NUMBER}, [("/prefixItems/0/type", True), ("/prefixItems/0/type", False)]),
        ({"uniqueItems": True}, {}, [("/uniqueItems", False)]),
        ({"oneOf": [NUMBER]}, {"oneOf": [NUMBER, STRING]}, [("/oneOf", True)]),
        ({"anyOf": [NUMBER]}, {"anyOf": [NUMBER, STRING]}, [("/anyOf", False)]),
        ({"anyOf": [NUMBER, STRING]}, {"anyOf": [NUMBER]}, [("/anyOf", True)]),
        ({"allOf": [NUMBER]}, {"allOf": [NUMBER, STRING]}, [("/allOf", True)]),
        ({"not": {"type": "string"}}, {"not": {"type": "number"}}, [("/not", True)]),
        ({"if": NUMBER, "then": {"minimum": 1}}, {"if": NUMBER}, [("/if", True)]),
        ({"contains": NUMBER, "minContains": 2}, {"contains": NUMBER}, [("/contains", True)]),
        ({"contains": NUMBER}, {}, [("/contains", False)]),
        ({"x-ours": 1}, {"x-ours": 2}, [("/x-ours", True)]),
        ({"unevaluatedProperties": False}, {}, [("", True)]),
        ({"unevaluatedProperties": False}, {"unevaluatedProperties": False}, []),
        ({"default": 1}, {"default": 2}, [("/default", False)]),
        ({}, False, [("", True)]),
        ({"properties": {"a": False}}, {"properties": {"a": STRING}}, [("/properties/a", False)]),
    ],
)  # fmt: skip
def test_each_schema_change_is_reported_as_breaking_or_compatible(
    old: Any, new: Any, changes: list[tuple[str, bool]]
) -> None:
    assert found(old, new) == changes


def test_references_are_followed() -> None:
    def schema(bound: int) -> dict[str, Any]:
        return {"properties": {"a": {"$ref": "#/$defs/small"}}, "$defs": {"small": {"maximum": bound}}}

    assert found(schema(1), schema(2)) == [("/$defs/small/maximum", False)]
    assert found(schema(2), schema(1)) == [("/$defs/small/maximum", True)]
    assert found({"properties": {"a": {"maximum": 1}}}, schema(1)) == []  # only moved
    assert found({}, {"$ref": "#/nowhere"}) == [("/$ref", True)]


def test_a_recursive_schema_ends() -> None:
    tree = {"properties": {"next": {"$ref": "#"}, "value": {"maximum": 1}}}
    wider = {"properties": {"next": {"$ref": "#"}, "value": {"maximum": 2}}}
    assert found(tree, wider) == [("/properties/value/maximum", False)]
    assert found(wider, tree) == [("/properties/value/maximum", True)]
    inside = {"not": {"$ref": "#/$defs/a"}, "$defs": {"a": {"maximum": 1}}}
    assert found(inside, {**inside, "$defs": {"a": {"maximum": 2}}}) == [("/not", True)]


def test_a_schema_that_is_too_large_to_compare_is_breaking() -> None:
    def chain(bound: int) -> dict[str, Any]:
        links: dict[str, Any] = {str(n): {"items": {"$ref": f"#/$defs/{n + 1}"}} for n in range(200)}
        return {"$ref": "#/$defs/0", "$defs": {**links, "200": {"maximum": bound}}}

    changes = diff(chain(1), chain(2))
    assert {change.description for change in changes} == {"the schemas are too complex to compare"}
    assert all(change.is_breaking for change in changes)


_NAMES = st.sampled_from(["a", "b", "c"])
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.5]), st.sampled_from(["", "a", "ab", "2021-01-01"])
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3), max_leaves=6
)  # fmt: skip
_SMALL = st.integers(0, 3)


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    types = st.sampled_from(["null", "boolean", "object", "array", "number", "string", "integer"])
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": st.one_of(types, st.lists(types, min_size=1, max_size=3, unique=True)),
        "enum": st.lists(_SCALARS, min_size=1, max_size=4),
        "const": _SCALARS,
        **dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"], st.integers(-3, 3)),
        **dict.fromkeys(["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"], _SMALL),
        "multipleOf": st.sampled_from([1, 2, 3, 6, 0.5]),
        "uniqueItems": st.booleans(),
        "required": st.lists(_NAMES, unique=True, max_size=2),
        "properties": st.dictionaries(_NAMES, inner, max_size=3),
        "patternProperties": st.dictionaries(st.sampled_from(["a", "^[bc]$"]), inner, max_size=1),
        "pattern": st.sampled_from(["a", "^b"]),
        "format": st.just("date"),
        **dict.fromkeys(["additionalProperties", "items", "contains", "not", "propertyNames", "if", "then"], inner),
        "prefixItems": st.lists(inner, min_size=1, max_size=2),
        "minContains": _SMALL,
        "maxContains": _SMALL,
        **dict.fromkeys(["allOf", "anyOf", "oneOf"], st.lists(inner, min_size=1, max_size=2)),
        "$ref": st.sampled_from(["#/$defs/one", "#/$defs/two"]),
    }  # fmt: skip
    return st.lists(st.sampled_from(sorted(keywords)), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: keywords[name] for name in names})
    )


_LEAVES: st.SearchStrategy[Any] = st.one_of(st.booleans(), _schemas(st.booleans()))
_SCHEMAS: st.SearchStrategy[dict[str, Any]] = _schemas(st.one_of(_LEAVES, _schemas(_LEAVES)))
_PLAIN: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"type": "integer"}, {"maximum": 1}, {"maximum": 2}, {"required": ["a"]}]
)


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two schemas that have much in common: the new one is the old one with a few keywords replaced, deep inside."""

    def changed(node: Any) -> Any:
        if not isinstance(node, dict) or draw(st.integers(0, 3)) == 0:
            return draw(_LEAVES)
        copy = dict(node)
        if draw(st.booleans()) and copy:
            name = draw(st.sampled_from(sorted(copy)))
            if isinstance(copy[name], dict) and name not in {"properties", "patternProperties"}:
                copy[name] = changed(copy[name])
            elif name == "properties" and copy[name]:
                inner = draw(st.sampled_from(sorted(copy[name])))
                copy[name] = {**copy[name], inner: changed(copy[name][inner])}
            else:
                del copy[name]
        else:
            copy |= draw(_schemas(_LEAVES))
        return copy

    old = {**draw(_SCHEMAS), "$defs": {"one": draw(_PLAIN), "two": draw(_PLAIN)}}
    new = changed(old)
    new = new if isinstance(new, dict) else {}
    new["$defs"] = draw(st.sampled_from([old["$defs"], {"one": draw(_PLAIN), "two": draw(_PLAIN)}]))
    return old, new


@given(pair=_pairs(), values=st.lists(_VALUES, min_size=5, max_size=30))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_compatible_schema_accepts_everything_that_was_valid(
    pair: tuple[Any, Any], values: list[Any]
) -> None:
    old, new = pair
    changes = diff(old, new)
    if any(change.is_breaking for change in changes):
        event("breaking")
        return
    event("compatible, changed" if changes else "the same")
    checker = jsonschema.FormatChecker(["date"])
    before, after = (jsonschema.Draft202012Validator(schema, format_checker=checker) for schema in (old, new))
    for value in values:
        if before.is_valid(value):
            event("a valid value")
            assert after.is_valid(value), (changes, value)
        elif not changes:
            assert not after.is_valid(value)
