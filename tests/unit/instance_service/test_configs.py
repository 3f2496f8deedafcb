"""JSON Schemas and configs: every violation with its path, and no way out of the schema."""

import time
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from instance_service.domain.flows import Upstream
from instance_service.domain.rules import Rule, takes, upstream_violations
from instance_service.jsonschema_adapter import config_violations, schema_violations
from instance_service.resources.conversion import json_of

_SCHEMA = {
    "type": "object",
    "properties": {
        "symbols": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "start": {"type": "string", "format": "date"},
        "nested": {"type": "object", "properties": {"a": {"$ref": "#/$defs/small"}}, "required": ["a", "b"]},
        "formula": {"type": "string", "format": "optaic-expression"},
    },
    "required": ["start"],
    "additionalProperties": False,
    "$defs": {"small": {"type": "integer", "maximum": 3}},
}
_WHOLE = {
    "properties": {
        "n": {"type": ["integer", "null"]},
        "items": {"items": {"$ref": "#/$defs/whole"}},
        "real": {"type": "number"},
    },
    "$defs": {"whole": {"type": "integer"}},
}


def to_struct(values: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def _fields(config: dict[str, Any], schema: dict[str, Any] = _SCHEMA) -> dict[str, str]:
    key = repr(schema)
    return {item.field: item.reason for item in config_violations(key, schema, config, "config")}


def test_every_violation_has_its_path() -> None:
    config = {
        "symbols": ["A", 2, "A"], "start": "2021-13-01", "nested": {"a": 4}, "x": 1, "y z": 2,
        "formula": "NOPE(close)",
    }  # fmt: skip
    assert _fields(config) == {
        "config.symbols[1]": "INVALID_CONFIG",
        "config.symbols": "INVALID_CONFIG",
        "config.start": "INVALID_CONFIG",
        "config.nested.a": "INVALID_CONFIG",
        "config.nested.b": "INVALID_CONFIG",
        "config.x": "INVALID_CONFIG",
        "config['y z']": "INVALID_CONFIG",
        "config.formula": "INVALID_EXPRESSION",
    }
    assert _fields({}) == {"config.start": "INVALID_CONFIG"}
    assert not _fields({"start": "2021-12-31", "nested": {"a": 3.0, "b": None}, "formula": "REF(close, 1)"})


@pytest.mark.parametrize("number", [2**53 - 1, -(2**53) + 1, 0, 300])
def test_whole_numbers_that_a_double_carries_exactly_are_accepted(number: int) -> None:
    config = json_of(to_struct({"n": number, "items": [number]}))
    assert not _fields(config, _WHOLE)


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**53 + 1, 10**20])
def test_a_whole_number_that_is_not_carried_exactly_is_refused_by_its_place(number: int) -> None:
    config = json_of(to_struct({"n": number, "items": [1, number], "free": number, "real": number}))
    found = config_violations("whole", _WHOLE, config, "config")
    assert {each.field: each.reason for each in found} == {
        "config.n": "INVALID_CONFIG",
        "config.items[1]": "INVALID_CONFIG",
    }
    assert "9007199254740991" in found[0].description


@pytest.mark.parametrize("date", ["2021-02-29", "20211231", "2021-1-1", "today", "2021-12-31T00:00:00", ""])
def test_an_invalid_date_is_refused(date: str) -> None:
    assert _fields({"start": date}) == {"config.start": "INVALID_CONFIG"}


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({}, set()),
        ({"a": "2020-01-01", "b": "2020-01-01"}, set()),
        ({"a": "2020-01-02", "b": "2020-01-01"}, {"config.b"}),
        ({"a": 3, "c": 2.5}, {"config.c"}),
        ({"a": 1, "b": 2, "c": 3}, set()),
        ({"a": 3, "b": 2, "c": 1}, {"config.b", "config.c"}),
        ({"a": 3, "b": "2", "c": None}, set()),
    ],
)
def test_properties_that_ascend_are_held_to_it(config: dict[str, Any], wrong: set[str]) -> None:
    schema = {"x-optaic-ascending": ["a", "b", "c"], "properties": {"x-optaic-ascending": {"type": "string"}}}
    assert not schema_violations(schema, "s")
    assert set(_fields(config, schema)) == wrong


def test_a_schema_without_end_is_a_violation_not_a_crash() -> None:
    assert _fields({}, {"$ref": "#"}) == {"config": "INVALID_CONFIG"}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": 3}, "s.type"),
        ({"properties": {"a": {"pattern": "("}}}, "s.properties.a.pattern"),
        ({"allOf": [{"$ref": "other.json"}]}, "s.allOf[0].$ref"),
        ({"$ref": "file:///etc/passwd"}, "s.$ref"),
        ({"$ref": "#/$defs/gone"}, "s.$ref"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "s.$schema"),
        ({"$schema": 3}, "s.$schema"),
        ({"properties": {"a": {"x-optaic-ascending": "b"}}}, "s.properties.a.x-optaic-ascending"),
        ({"allOf": [{"x-optaic-ascending": ["b", 1]}]}, "s.allOf[0].x-optaic-ascending"),
    ],
)
def test_bad_schemas_are_refused_with_their_path(schema: dict[str, Any], path: str) -> None:
    assert [item.field for item in schema_violations(schema, "s")] == [path]


def test_good_schemas_pass() -> None:
    assert not schema_violations(_SCHEMA, "s")
    assert not schema_violations({}, "s")
    assert not schema_violations(
        {"$id": "https://example.org/a", "$ref": "#/$defs/b", "$defs": {"b": {}}}, "s"
    )


def _upstreams(*given: tuple[str, str]) -> list[tuple[str, Upstream]]:
    return [(f"[{n}]", Upstream(f"u{n}", kind, role)) for n, (kind, role) in enumerate(given)]


def test_roles_kinds_and_counts_are_checked() -> None:
    rules = [Rule("input", ("dataset", "signal"), 1, 2), Rule("extra")]
    assert not upstream_violations(rules, _upstreams(("dataset", "input"), ("model", "extra")), "own")

    def reasons(*given: tuple[str, str]) -> list[tuple[str, str]]:
        return [(item.field, item.reason) for item in upstream_violations(rules, _upstreams(*given), "own")]

    assert reasons() == [("instance.upstream_refs", "INVALID_SPEC")]
    assert reasons(("experiment", "input")) == [("[0]", "WRONG_UPSTREAM_KIND")]
    assert reasons(("dataset", "input"), ("backtest", "extra")) == [("[1]", "WRONG_UPSTREAM_KIND")]
    assert reasons(("dataset", "input"), ("dataset", "odd")) == [("[1]", "INVALID_SPEC")]
    assert reasons(*[("dataset", "input")] * 3) == [("instance.upstream_refs", "INVALID_SPEC")]
    own = upstream_violations([], _upstreams(("dataset", "input")), "u0")
    assert [item.reason for item in own] == ["INVALID_SPEC"]


@pytest.mark.parametrize(
    ("kinds", "is_taken"), [(("signal",), True), (("dataset", "signal"), True), (("dataset",), False)]
)
def test_whatever_takes_a_signal_takes_a_model(kinds: tuple[str, ...], is_taken: bool) -> None:
    found = upstream_violations([Rule("input", kinds)], _upstreams(("model", "input")), "own")
    assert [item.reason for item in found] == ([] if is_taken else ["WRONG_UPSTREAM_KIND"])
    assert takes([Rule("input", kinds)], "input", "model") is is_taken
    (refused,) = upstream_violations([Rule("input", kinds)], _upstreams(("experiment", "input")), "own")
    assert ("or model" in refused.description) is is_taken, "it says what the role takes"


def test_without_rules_anything_with_output_will_do() -> None:
    assert not upstream_violations([], _upstreams(("dataset", "any"), ("model", "other")), "own")
    assert [item.reason for item in upstream_violations([], _upstreams(("store", "any")), "own")] == [
        "WRONG_UPSTREAM_KIND"
    ]


def _doubling(levels: int) -> dict[str, Any]:
    """A small schema whose every level holds a value against the next one twice."""
    links = {
        str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}, {"$ref": f"#/$defs/{n + 1}"}]} for n in range(levels)
    }
    return {"$ref": "#/$defs/0", "$defs": {**links, str(levels): {}}}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (_nested(33), "32 levels"),
        ({"enum": ["x" * 70_000]}, "65536 bytes"),
        ({"properties": {str(n): {} for n in range(6_000)}}, "5000 values"),
        (_doubling(30), "1000 subschemas"),
        ({"$ref": "#"}, "without end"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"not": {"$ref": "#"}}}}, "without end"),
        ({"$ref": "#a", "$defs": {"x": {"$anchor": "a", "$ref": "#a"}}}, "write a JSON Pointer like"),
        ({"$dynamicRef": "#"}, "only $ref"),
        ({"$defs": {"a": {"$id": "https://example.org/b"}}}, "$id"),
        ({"pattern": "a" * 1_001}, "1000 characters"),
        ({"pattern": r"(a)\1"}, "invalid escape"),
        ({"pattern": "(?=a)b"}, "invalid perl"),
        ({"patternProperties": {"(?<!a)b": {}}}, "invalid perl"),
        ({"pattern": "((a{1,999}){1,999})"}, "s.pattern"),
        ({"unevaluatedProperties": False, "patternProperties": {"a": {}}}, "do not go together"),
    ],
)
def test_a_config_that_is_too_costly_to_check_is_refused(schema: dict[str, Any], text: str) -> None:
    found = schema_violations(schema, "s")
    assert found
    assert {item.reason for item in found} == {"INVALID_SCHEMA"}
    assert any(text in f"{item.field}: {item.description}" for item in found), found


def test_a_deep_tree_of_references_is_not_a_cycle() -> None:
    assert not schema_violations({"properties": {"next": {"$ref": "#"}, "not": {"$ref": "#"}}}, "s")


def test_no_pattern_keeps_the_service_busy() -> None:
    text = "a" * 50_000 + "!"
    schema = {
        "properties": {"a": {"pattern": "^(a+)+$"}, "b": {"format": "regex"}},
        "patternProperties": {"^(b+)+$": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert not schema_violations(schema, "s")
    began = time.monotonic()
    config = {"a": text, "b" * 50_000 + "!": 1, "bb": "x", "b": "("}
    assert set(_fields(config, schema)) == {
        "config.a",
        "config['" + "b" * 50_000 + "!']",
        "config.bb",
        "config.b",
    }
    assert time.monotonic() - began < 2  # Python's own engine would take longer than the universe is old


def test_no_recursion_keeps_the_service_busy() -> None:
    twice = {"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}
    assert not schema_violations(twice, "s")
    config: dict[str, Any] = {}
    for _ in range(40):
        config = {"a": config}
    assert _fields(config, twice) == {"config": "INVALID_CONFIG"}


def test_equal_items_are_found_in_time() -> None:
    items = [{"n": n} for n in range(20_000)]
    assert not _fields({"a": items}, {"properties": {"a": {"uniqueItems": True}}})
    assert not _fields({"a": [1, True, 0, False]}, {"properties": {"a": {"uniqueItems": True}}})
    assert _fields({"a": [*items, {"n": 0}]}, {"properties": {"a": {"uniqueItems": True}}})
