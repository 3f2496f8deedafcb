"""Alternatives in schemas have the library's verdicts, though ours keep no errors of what does not fit."""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from instance_service.jsonschema_adapter import (
    EXPRESSION,
    config_violations,
    expressions_of,
    field_path,
    schema_violations,
)

_NAMES = st.sampled_from(["a", "b"])
_SCALARS = st.one_of(st.none(), st.integers(-2, 2), st.sampled_from(["", "a", "bb"]))
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=2), max_leaves=5
)  # fmt: skip


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        *(several.map(lambda schemas, name=name: {name: schemas}) for name in ("anyOf", "oneOf", "allOf")),  # type: ignore[misc]  # a default binds the name
        inner.map(lambda schema: {"not": schema}),
        inner.map(lambda schema: {"items": schema}),
        st.dictionaries(_NAMES, inner, max_size=2).map(lambda schemas: {"properties": schemas}),
    )


_LEAVES = st.one_of(
    st.booleans(),
    st.sampled_from(["null", "integer", "string", "array", "object"]).map(lambda name: {"type": name}),
    st.integers(-2, 2).map(lambda number: {"minimum": number}),
    st.integers(-2, 2).map(lambda number: {"const": number}),
    st.just({"maxLength": 1}),
)
_SCHEMAS = st.recursive(_LEAVES, _schemas, max_leaves=8)


@settings(max_examples=500, deadline=None)
@given(_SCHEMAS, _VALUES)
def test_what_fits_is_what_the_library_says(schema: Any, value: Any) -> None:
    whole = {"properties": {"x": schema}}
    theirs = jsonschema.Draft202012Validator(whole).iter_errors({"x": value})
    expected = sorted(field_path("c", error.absolute_path) for error in theirs)
    assert sorted(_fields(whole, {"x": value})) == expected


def _fields(schema: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    return [violation.field for violation in config_violations(json.dumps(schema), schema, config, "c")]


def test_the_expressions_in_all_of_an_alternative_are_found() -> None:
    expression = {"type": "string", "format": EXPRESSION}
    schema = {"properties": {"x": {"anyOf": [{"type": "array", "items": expression}, {"type": "null"}]}}}
    assert schema_violations(schema, "s") == []
    found = expressions_of("alternatives of expressions", schema, {"x": ["close", 1, "open"]})
    assert found == ["close", "open"]
