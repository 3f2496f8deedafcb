"""A refusal never repeats a value that the schema, or its name, says is a secret; a marked one must be a reference."""

import json
from importlib import resources
from typing import Any

import pytest
from google.protobuf import json_format

from instance_service.domain.schema_diff import diff
from instance_service.jsonschema_adapter import config_violations, schema_violations
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.plugins.registry import parse_manifest

CANARY = "k4n4rie-Zx81"
MARKS = ({"writeOnly": True}, {"format": "password"})
REFERENCE = "${OPTAIC_SECRET_WAREHOUSE}"


def _refused(schema: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    found = config_violations(json.dumps(schema), schema, config, "config")
    assert CANARY not in repr(found)
    return {each.field: each.description for each in found}


def _schemas(secret: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One schema for each way to a marked property."""
    by_name = {"properties": {"login": secret}}
    return {
        "plain": by_name,
        "reference": {"properties": {"login": {"$ref": "#/$defs/a~1b"}}, "$defs": {"a/b": secret}},
        "all of": {"allOf": [{"$ref": "#/$defs/base"}], "$defs": {"base": by_name}},
        "any of": {"anyOf": [by_name, {"required": ["nothing"]}]},
        "one of": {"oneOf": [by_name, {"required": ["nothing"]}]},
        "condition": {"if": {"required": ["login"]}, "then": by_name},
        "pattern": {"patternProperties": {"^log": secret}},
        "additional": {"additionalProperties": secret},
        "unevaluated": {"unevaluatedProperties": secret},
        "dependent": {"dependentSchemas": {"login": by_name}},
    }


@pytest.mark.parametrize("mark", MARKS, ids=str)
@pytest.mark.parametrize("way", sorted(_schemas({})))
def test_a_secret_in_clear_is_refused_without_being_repeated(way: str, mark: dict[str, Any]) -> None:
    schema = _schemas({"type": "string", **mark})[way]
    assert not schema_violations(schema, "schema")
    refused = _refused(schema, {"login": CANARY})
    assert any("secret" in text for text in refused.values())
    assert not _refused(schema, {"login": REFERENCE})


@pytest.mark.parametrize(
    "rule",
    [
        {"minLength": 100}, {"maxLength": 3}, {"pattern": "^x"}, {"enum": ["a"]}, {"const": "a"}, {"type": "integer"},
        {"format": "uri"}, {"format": "date"}, {"not": {"type": "string"}}, {"anyOf": [{"const": "a"}, {"const": "b"}]},
        {"oneOf": [{"const": "a"}, {"const": "b"}]}, {"allOf": [{"pattern": "^x"}]}, {"format": "optaic-expression"},
    ],
    ids=str,
)  # fmt: skip
def test_no_keyword_repeats_a_secret(rule: dict[str, Any]) -> None:
    # Each together with the mark, and for a property that only its name gives away.
    assert "config.key" in _refused({"properties": {"key": {"writeOnly": True, **rule}}}, {"key": CANARY})
    refused = _refused({"properties": {"db_password": rule}}, {"db_password": CANARY})
    assert "config.db_password" in refused


@pytest.mark.parametrize(
    "value",
    [
        [CANARY],
        {CANARY: 1},
        {"a": CANARY},
        [[{"b": CANARY}]],
        f"{REFERENCE}{CANARY}",
        CANARY * 500,
        8171.25,
        "",
    ],
    ids=repr,
)
@pytest.mark.parametrize("mark", MARKS, ids=str)
def test_a_secret_of_another_type_is_not_repeated(value: object, mark: dict[str, Any]) -> None:
    schema = {
        "properties": {"login": {"type": "string", **mark, "maxLength": 64}},
        "required": ["login"],
    }
    found = config_violations(repr(mark), schema, {"login": value}, "config")
    assert {each.field for each in found} == {"config.login"}
    assert CANARY not in repr(found)
    assert "8171" not in repr(found)


def test_an_error_does_not_repeat_a_secret_inside_a_larger_value() -> None:
    secret = {"type": "string", "writeOnly": True}
    schema = {
        "properties": {
            "logins": {
                "type": "array",
                "items": {"properties": {"pin": secret}},
                "uniqueItems": True,
                "maxItems": 1,
            },
            "pair": {"prefixItems": [secret], "items": False},
            "login": {
                "type": "object",
                "properties": {"pin": secret},
                "maxProperties": 1,
                "additionalProperties": False,
            },
            "start": {"type": "string", "format": "date"},
        },
        "not": {"required": ["logins"]},
        "oneOf": [{"required": ["x"]}, {"required": ["y"]}],
        "x-optaic-ascending": ["start", "login"],
    }
    one = {"pin": CANARY}
    config = {
        "logins": [one, one], "pair": [CANARY, CANARY], "login": {"pin": CANARY, "other": CANARY}, "start": CANARY,
    }  # fmt: skip
    refused = _refused(schema, config)
    assert {"config", "config.logins", "config.logins[0].pin", "config.login.other", "config.start"} <= set(
        refused
    )
    # What should hold a secret and is a text may be one.
    assert "config.login" in _refused(schema, {"login": CANARY})
    assert "config.logins" not in _refused(schema, {"login": CANARY})


def test_other_values_are_shown_as_before() -> None:
    schema = {
        "properties": {
            "pin": {"writeOnly": True},
            "start": {"type": "string", "format": "date"},
            "n": {"maximum": 3},
        }
    }
    refused = _refused(schema, {"pin": REFERENCE, "start": "soon", "n": 4})
    assert '"soon"' in refused["config.start"]
    assert refused["config.n"] == "4 is more than 3"


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("sql", {"url": f"postgresql://reader:{CANARY}@db.example/prices", "table": "prices"}),
        ("sql", {"url": f"postgresql://db.example/prices?password={CANARY}", "table": "prices"}),
        ("sql", {"url": f"postgresql://reader:{CANARY}@db.example/prices"}),
        ("sql", {"url": [CANARY], "table": "prices"}),
        ("sql", {"url": f"{CANARY}@" * 900, "table": "prices"}),
        ("file", {"url": f"ftp://reader:{CANARY}@files.example/a.csv"}),
        ("file", {"url": "s3://bucket/a.csv", "storage_options": {"secret": CANARY}}),
        ("file", {"url": "s3://bucket/a.csv", "storage_options": {"key": {"a": CANARY}}}),
        ("file", {"url": "s3://bucket/a.csv", "storage_options": CANARY}),
        ("file", {"url": "s3://bucket/a.csv", "storage_options": {"token": CANARY}, "separator": ";", "delimiter": ";"}),
    ],
)  # fmt: skip
def test_the_built_in_sources_repeat_no_credentials(name: str, config: dict[str, Any]) -> None:
    text = (resources.files("instance_service") / "builtin" / f"{name}.json").read_text("utf-8")
    requests: list[PublishDefinitionRequest] = list(parse_manifest(text))
    for request in requests:
        schema = json_format.MessageToDict(request.definition_version.parameters_schema)
        assert _refused(schema, config)


@pytest.mark.parametrize(
    "said", [{"default": CANARY}, {"examples": [CANARY]}, {"enum": ["a"]}, {"const": "a"}]
)
def test_an_error_about_a_schema_contains_no_secret(said: dict[str, Any]) -> None:
    (refused,) = schema_violations({"properties": {"pin": {"writeOnly": True, **said}}}, "schema")
    assert refused.field == f"schema.properties.pin.{next(iter(said))}"
    assert CANARY not in repr(refused)
    assert not schema_violations({"properties": {"pin": {"writeOnly": True, "default": REFERENCE}}}, "schema")


def test_a_mark_is_a_breaking_change() -> None:
    before: dict[str, Any] = {"properties": {"pin": {}}}
    assert any(change.is_breaking for change in diff(before, {"properties": {"pin": {"writeOnly": True}}}))
