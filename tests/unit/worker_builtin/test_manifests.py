"""The manifests of the built-in library: each names code that loads, and a schema that says what it means."""

from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
from google.protobuf import json_format

from instance_service.jsonschema_adapter import config_violations, schema_violations
from optaic.definition.v1.definition_pb2 import DefinitionKind
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.plugins import Accessor, Pipeline, Store, load

_FOLDER = resources.files("instance_service") / "builtin"
_NAMES = sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".json"))
_BASES: dict[str, Callable[..., object]] = {"PIPELINE": Pipeline, "STORE": Store, "ACCESSOR": Accessor}
_FIRST = {
    "delta.json",
    "expression.json",
    "simple.json",
    "sp500_prices.json",
}  # published before descriptions were


def _read(name: str) -> PublishDefinitionRequest:
    return json_format.Parse((_FOLDER / name).read_text("utf-8"), PublishDefinitionRequest())


def _plain(struct: Any) -> dict[str, Any]:
    return json_format.MessageToDict(struct)


def _violations(name: str, config: dict[str, Any]) -> set[str]:
    schema = _plain(_read(f"{name}.json").definition_version.parameters_schema)
    return {item.field for item in config_violations(name, schema, config, "config")}


@pytest.mark.parametrize("name", _NAMES)
def test_the_code_of_a_manifest_loads(name: str) -> None:
    request = _read(name)
    assert name == f"{request.name}.json"
    kind = DefinitionKind.Name(request.kind).removeprefix("DEFINITION_KIND_")
    load(request.definition_version.code_ref, _BASES[kind])


@pytest.mark.parametrize("name", _NAMES)
def test_the_schemas_of_a_manifest_are_schemas_with_descriptions(name: str) -> None:
    version = _read(name).definition_version
    for schema in (version.parameters_schema, version.input_schema, version.output_schema):
        assert not schema_violations(_plain(schema), "schema")
    properties = _plain(version.parameters_schema).get("properties", {})
    if name not in _FIRST:
        assert all(described.get("description") for described in properties.values())


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////var/data/prices.db",
        "postgresql+psycopg://reader@db.example:5432/prices",
        "postgresql+psycopg://reader:${OPTAIC_SECRET_DB}@db.example/prices?sslmode=require",
        "${OPTAIC_SECRET_URL}",
    ],
)
def test_a_database_may_be_named_without_its_password(url: str) -> None:
    assert not _violations("sql", {"url": url, "table": "research.prices", "cursor": "updated_at"})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://reader:hunter2@db.example/prices",
        "postgresql+psycopg://reader:${PATH}@db.example/prices",
        "postgresql+psycopg://reader@db.example/prices?password=hunter2",
        "${HOME}",
    ],
)
def test_a_password_in_clear_is_refused(url: str) -> None:
    assert _violations("sql", {"url": url, "table": "prices"}) == {"config.url"}


def test_either_a_table_or_a_query_is_read() -> None:
    assert _violations("sql", {"url": "sqlite:///a"}) == {"config"}
    assert _violations("sql", {"url": "sqlite:///a", "table": "a", "query": "select 1"}) == {"config"}


def test_a_files_secrets_are_refused_in_clear() -> None:
    options = {"endpoint_url": "https://s3.example", "anon": False, "secret": "${OPTAIC_SECRET_S3}"}
    assert not _violations("file", {"url": "s3://bucket/a.parquet", "storage_options": options})
    assert _violations("file", {"url": "s3://b/a.csv", "storage_options": {"key": "AKIA"}}) == {
        "config.storage_options.key"
    }
    assert _violations("file", {"url": "ftp://me:hunter2@host/a.csv"}) == {"config.url"}
    assert not _violations("file", {"url": "/data/a.csv", "columns": {"date": "Day of trade"}})
