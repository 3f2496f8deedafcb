"""What a schema calls an integer arrives as `int`, wherever it stands; everything else keeps its value and type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from optaic.plugins.numbers import type_numbers

INTEGER, NUMBER = {"type": "integer"}, {"type": "number"}


def carried(value: Any) -> Any:
    """What comes out of a Struct."""
    message = struct_pb2.Struct()
    message.update({"value": value})
    return json_format.MessageToDict(message)["value"]


def shown(value: Any) -> str:
    """JSON, in which 300 and 300.0 differ."""
    return json.dumps(value, sort_keys=True)


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


KINDED = {
    "oneOf": [
        {"properties": {"kind": {"const": "window"}, "size": INTEGER}, "required": ["kind"]},
        {"properties": {"kind": {"const": "decay"}, "size": NUMBER}, "required": ["kind"]},
    ]
}
CASES: dict[str, tuple[Any, Any, Any]] = {
    "an integer": (of(days=INTEGER), {"days": 300}, {"days": 300}),
    "a number": (of(alpha=NUMBER), {"alpha": 1}, {"alpha": 1.0}),
    "a number with a fraction": (of(alpha=NUMBER), {"alpha": 0.5}, {"alpha": 0.5}),
    "nothing said": (of(), {"n": 3, "x": 0.5}, {"n": 3, "x": 0.5}),
    "nothing said of a large number": ({}, {"x": 1e300}, {"x": 1e300}),
    "an integer that is very large": (of(n=INTEGER), {"n": 2.0**60}, {"n": 2**60}),
    "an integer or null": (of(n={"type": ["integer", "null"]}), {"n": 3}, {"n": 3}),
    "an integer or a number": (of(n={"type": ["number", "integer"]}), {"n": 3}, {"n": 3}),
    "null": (of(n={"type": ["integer", "null"]}), {"n": None}, {"n": None}),
    "a boolean": (of(n={"type": ["integer", "boolean"]}), {"n": True}, {"n": True}),
    "a negative integer": (of(n=INTEGER), {"n": -7}, {"n": -7}),
    "zero": (of(n=INTEGER, x=NUMBER), {"n": 0, "x": 0}, {"n": 0, "x": 0.0}),
    "a constant": (of(n={"const": 5}), {"n": 5}, {"n": 5}),
    "one of some": (of(n={"enum": [1, 2, "x"]}), {"n": 2}, {"n": 2}),
    "one of some numbers": (of(n={"type": "number", "enum": [1, 2.5]}), {"n": 1}, {"n": 1.0}),
    "items": (of(n={"items": INTEGER}), {"n": [1, 2]}, {"n": [1, 2]}),
    "items that are numbers": (of(n={"items": NUMBER}), {"n": [1, 2]}, {"n": [1.0, 2.0]}),
    "the first items": (
        of(n={"prefixItems": [INTEGER, NUMBER], "items": NUMBER}),
        {"n": [1, 2, 3]},
        {"n": [1, 2.0, 3.0]},
    ),
    "the rest of the items": (
        of(n={"prefixItems": [NUMBER], "items": INTEGER}),
        {"n": [1, 2, 3]},
        {"n": [1.0, 2, 3]},
    ),
    "contained items": (
        of(n={"items": NUMBER, "contains": {"type": "integer", "minimum": 5}}),
        {"n": [1, 7]},
        {"n": [1.0, 7]},
    ),
    "unevaluated items": (
        of(n={"prefixItems": [NUMBER], "unevaluatedItems": INTEGER}),
        {"n": [1, 2]},
        {"n": [1.0, 2]},
    ),
    "additional properties": (
        {"properties": {"x": NUMBER}, "additionalProperties": INTEGER},
        {"x": 1, "n": 2},
        {"x": 1.0, "n": 2},
    ),
    "properties of a pattern": (
        {"patternProperties": {"^n_": INTEGER, r"^x_\pL": NUMBER}, "additionalProperties": NUMBER},
        {"n_a": 1, "x_a": 2, "other": 3},
        {"n_a": 1, "x_a": 2.0, "other": 3.0},
    ),
    "unevaluated properties": (
        {"allOf": [{"properties": {"x": NUMBER}}], "unevaluatedProperties": INTEGER},
        {"x": 1, "n": 2},
        {"x": 1.0, "n": 2},
    ),
    "a reference": (
        {"properties": {"n": {"$ref": "#/$defs/whole"}}, "$defs": {"whole": INTEGER}},
        {"n": 3},
        {"n": 3},
    ),
    "a reference to a reference, with an escaped name": (
        {
            "properties": {"n": {"$ref": "#/$defs/a"}},
            "$defs": {"a": {"$ref": "#/$defs/b~1c"}, "b/c": INTEGER},
        },
        {"n": 3},
        {"n": 3},
    ),
    "a schema that refers to itself": (
        {"properties": {"n": NUMBER, "child": {"$ref": "#"}}},
        {"n": 1, "child": {"n": 2, "child": {"n": 3}}},
        {"n": 1.0, "child": {"n": 2.0, "child": {"n": 3.0}}},
    ),
    "an optimizer's constraints": (
        {"$ref": "#/$defs/constraints", "$defs": {"constraints": of(names=INTEGER, cap=NUMBER)}},
        {"names": 30, "cap": 1},
        {"names": 30, "cap": 1.0},
    ),
    "all of": (of(n={"allOf": [NUMBER, {"type": "integer", "minimum": 0}]}), {"n": 3}, {"n": 3}),
    "any of": (of(n={"anyOf": [{"type": "string"}, INTEGER]}), {"n": 3}, {"n": 3}),
    "any of several that fit": (of(n={"anyOf": [NUMBER, INTEGER]}), {"n": 3}, {"n": 3}),
    "any of, and only the number fits": (
        of(n={"anyOf": [{"type": "integer", "maximum": 2}, NUMBER]}),
        {"n": 3},
        {"n": 3.0},
    ),
    "one of, by what it calls itself": (KINDED, {"kind": "window", "size": 3}, {"kind": "window", "size": 3}),
    "the other one of": (KINDED, {"kind": "decay", "size": 3}, {"kind": "decay", "size": 3.0}),
    "alternatives by a pattern": (
        of(
            n={
                "oneOf": [
                    of(key={"type": "string", "pattern": r"^\p{Lu}"}, n=INTEGER),
                    of(key={"type": "string", "pattern": r"^\p{Ll}"}, n=NUMBER),
                ]
            }
        ),
        {"n": {"key": "low", "n": 1}},
        {"n": {"key": "low", "n": 1.0}},
    ),
    "alternatives by cents": (
        {
            "anyOf": [
                {"properties": {"price": {"type": "number", "multipleOf": 0.01}, "lots": NUMBER}},
                {"properties": {"price": {"type": "string"}, "lots": INTEGER}},
            ]
        },
        {"price": 4.02, "lots": 3},
        {"price": 4.02, "lots": 3.0},
    ),
    "if and then": (
        {"if": {"properties": {"whole": {"const": True}}}, "then": of(n=INTEGER), "else": of(n=NUMBER)},
        {"whole": True, "n": 3},
        {"whole": True, "n": 3},
    ),
    "if and else": (
        {"if": {"properties": {"whole": {"const": True}}}, "then": of(n=INTEGER), "else": of(n=NUMBER)},
        {"whole": False, "n": 3},
        {"whole": False, "n": 3.0},
    ),
    "what another property brings": (
        {"properties": {"n": NUMBER}, "dependentSchemas": {"whole": of(n=INTEGER)}},
        {"whole": 1, "n": 3},
        {"whole": 1, "n": 3},
    ),
    "what is forbidden": (
        of(n={"type": "number", "not": {"type": "integer", "maximum": 2}}),
        {"n": 3},
        {"n": 3.0},
    ),
    "deep inside": (
        of(a={"items": of(b={"additionalProperties": {"prefixItems": [INTEGER]}})}),
        {"a": [{"b": {"c": [4]}}]},
        {"a": [{"b": {"c": [4]}}]},
    ),
    "always and never": ({"properties": {"n": True, "x": False}}, {"n": 3, "x": 2}, {"n": 3, "x": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_gets_every_number_as_its_schema_calls_it(case: str) -> None:
    schema, given_value, expected = CASES[case]
    assert shown(type_numbers(carried(given_value), carried(schema))) == shown(expected)


@pytest.mark.parametrize("case", CASES)
def test_a_plugin_called_without_a_run_gets_the_same(case: str) -> None:
    schema, given_value, expected = CASES[case]
    assert shown(type_numbers(given_value, schema)) == shown(expected)


def test_a_whole_number_that_no_double_holds_stays_itself() -> None:
    assert type_numbers({"n": 10**400, "m": 10**400}, of(n=NUMBER, m=INTEGER)) == {"n": 10**400, "m": 10**400}


WHOLE = st.integers(-(2**53) + 1, 2**53 - 1)
REAL = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(min_size=1, max_size=5)


def leaf(schema: Any, values: Any) -> Any:
    return values.map(lambda value: (schema, value))


def object_of(members: dict[str, tuple[Any, Any]]) -> tuple[Any, Any]:
    return of(**{name: schema for name, (schema, _) in members.items()}), {
        name: value for name, (_, value) in members.items()
    }


def list_of(members: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    return {"prefixItems": [schema for schema, _ in members]}, [value for _, value in members]


def wrapped(pair: tuple[Any, Any]) -> Any:
    """The same in other words."""
    schema, value = pair
    ways = [schema, {"allOf": [schema]}, {"anyOf": [schema, {"type": "null"}]}, {"oneOf": [schema]}]
    return st.sampled_from([(way, value) for way in ways])


SCHEMA_AND_VALUE = st.recursive(
    leaf(INTEGER, WHOLE)
    | leaf({"type": ["integer", "null"]}, WHOLE | st.none())
    | leaf(NUMBER, REAL)
    | leaf({}, WHOLE | st.text(max_size=3) | st.booleans() | st.none()),
    lambda inner: (
        st.dictionaries(NAMES, inner.flatmap(wrapped), max_size=3).map(object_of)
        | st.lists(inner.flatmap(wrapped), min_size=1, max_size=3).map(list_of)
    ),
    max_leaves=12,
)


@given(SCHEMA_AND_VALUE)
def test_a_valid_config_reaches_the_plugin_unchanged(pair: tuple[Any, Any]) -> None:
    schema, value = pair
    arrived = type_numbers(carried(value), carried(schema))
    assert shown(arrived) == shown(value)
    assert shown(type_numbers(arrived, schema)) == shown(arrived)
