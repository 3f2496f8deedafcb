"""What a config breaks is said in the words of JSON, never in those of Python."""

import re
from typing import Any

import pytest

from instance_service.domain.schema_messages import describe_rule, shown
from instance_service.jsonschema_adapter import config_violations, schema_violations

_PYTHON = re.compile(r"\\b(None|True|False|NoneType|dict|object at|class)\\b|'")


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [
        ({"type": "string"}, True, "true is not of type string"),
        ({"type": "string"}, None, "null is not of type string"),
        ({"type": ["string", "number"]}, {"a": None}, '{"a": null} is not of type string or number'),
        ({"type": "number"}, "1e-3", '"1e-3" is not of type number'),
        ({"enum": ["a", None, True]}, False, 'false is not one of "a", null, true'),
        ({"const": None}, "x", '"x" is not null'),
        ({"minimum": 1}, 0.5, "0.5 is less than 1"),
        ({"exclusiveMaximum": 2}, 2, "2 is not less than 2"),
        ({"multipleOf": 0.01}, 0.005, "0.005 is not a multiple of 0.01"),
        ({"minLength": 1}, "", '"" has fewer than 1 character'),
        ({"maxLength": 2}, "abc", '"abc" has more than 2 characters'),
        ({"pattern": "^[A-Z]+$"}, "it's", '"it\'s" does not match "^[A-Z]+$"'),
        ({"maxItems": 0}, [None], "[null] has more than 0 items"),
        ({"uniqueItems": True}, [True, True], "[true, true] has an item twice"),
        (
            {"contains": {"type": "null"}},
            [True],
            "[true] contains too few items of the kind that the schema demands",
        ),
        ({"anyOf": [{"type": "null"}, {"const": 3}]}, True, "true fits none of the alternatives"),
        ({"oneOf": [True, True]}, None, "null does not fit exactly one of the alternatives"),
        ({"not": {}}, None, "null is a value that the schema excludes"),
        (False, None, "null is not allowed here"),
        ({"minProperties": 1}, {}, "{} has fewer than 1 value"),
        (
            {"dependentRequired": {"a": ["b"]}},
            {"a": None},
            '{"a": null} lacks a property that another of its properties requires',
        ),
        (
            {"unevaluatedProperties": False},
            {"a": True},
            '{"a": true} has properties that the schema does not know',
        ),
        ({"format": "regex"}, "(", '"(" is not of the format regex'),
    ],
)
def test_errors_show_values_as_json(schema: Any, value: Any, text: str) -> None:
    whole = {"properties": {"v": schema}}
    assert not schema_violations(whole, "s")
    (violation,) = config_violations(f"w {schema!r}", whole, {"v": value}, "c")
    assert violation.field in {"c.v", "c"}  # the library does not say where a schema of `false` stands
    assert violation.description == text


@pytest.mark.parametrize(
    "schema", [{"type": None}, {"properties": {"a": None}}, {"required": [True]}, {"minimum": None}]
)
def test_errors_of_a_bad_schema_use_the_words_of_json(schema: dict[str, Any]) -> None:
    found = schema_violations(schema, "s")
    assert found
    assert not [each for each in found if _PYTHON.search(each.description)]


def test_a_large_value_and_an_unknown_rule_have_words_too() -> None:
    assert len(shown(["x" * 1000])) == 200
    assert describe_rule("x-other", 1, None) == "null breaks the rule x-other"
