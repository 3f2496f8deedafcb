"""The manifests of the built-in library: each names code that loads, and a schema that says what it means."""

import dataclasses
import json
from collections.abc import Callable
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest
from google.protobuf import json_format

from instance_service.jsonschema_adapter import config_violations, schema_violations
from instance_service.resources.definitions.content import content_violations
from optaic.definition.v1.definition_pb2 import DEFINITION_KIND_OP_MACRO, DefinitionKind
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.expression import MACROS, OPERATORS, Macro, check_macro, parse
from optaic.plugins import Accessor, MLModule, Operator, Optimizer, Pipeline, Store, load
from optaic.plugins.registry import parse_manifest
from servicekit.contracts import check_contract
from servicekit.enums import enum_word
from support.published_definitions import compute_present, read_released
from worker.builtin import language
from worker.training import TrainingSettings

_FOLDER = resources.files("instance_service") / "builtin"
_FILES = sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".json"))
_EACH = {
    f"{one.name} {one.definition_version.version}": one
    for file in _FILES
    for one in parse_manifest((_FOLDER / file).read_text("utf-8"))
}
_ALL = {one.name: one for one in _EACH.values()}  # the newest: the last of its file
_BASES: dict[str, Callable[..., object]] = {
    "PIPELINE": Pipeline,
    "STORE": Store,
    "ACCESSOR": Accessor,
    "OP": Operator,
    "ML_MODULE": MLModule,
    "PORTFOLIO_OPTIMIZER": Optimizer,
}


def _macro(request: PublishDefinitionRequest) -> Macro:
    saved = request.definition_version.op_macro
    return Macro(request.name, tuple(saved.parameters), saved.expression)


def _plain(struct: Any) -> dict[str, Any]:
    return json_format.MessageToDict(struct)


def _violations(name: str, config: dict[str, Any]) -> set[str]:
    schema = _plain(_ALL[name].definition_version.parameters_schema)
    return {item.field for item in config_violations(name, schema, config, "config")}


@pytest.mark.parametrize("name", sorted(_EACH))
def test_the_code_of_a_manifest_loads(name: str) -> None:
    request = _EACH[name]
    check_contract(request)
    if request.kind == DEFINITION_KIND_OP_MACRO:
        assert not request.definition_version.code_ref
        check_macro(_macro(request))
        return
    kind = enum_word(DefinitionKind, request.kind).upper()
    load(request.definition_version.code_ref, _BASES[kind])


@pytest.mark.parametrize("name", sorted(_EACH))
def test_the_schemas_of_a_manifest_are_schemas_with_descriptions(name: str) -> None:
    version = _EACH[name].definition_version
    version.kind = _EACH[name].kind
    assert not list(content_violations(version, "definition_version"))
    for schema in (version.parameters_schema, version.input_schema, version.output_schema):
        assert not schema_violations(_plain(schema), "schema")
    properties = _plain(version.parameters_schema).get("properties", {})
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


def test_the_dates_of_prices_are_in_order() -> None:
    good = {"start": "2020-01-02", "end": "2020-01-02", "as_of": "2021-01-01"}
    assert not _violations("sp500_prices", good)
    assert _violations("sp500_prices", {"start": "2020-01-02", "end": "2020-01-01"}) == {"config.end"}
    assert _violations("sp500_prices", {"start": "2020-01-02", "as_of": "2019-12-31"}) == {"config.as_of"}


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


def test_the_manifests_of_the_language_are_those_of_its_table() -> None:
    for file, manifests in (
        ("operators.json", language.operator_manifests()),
        ("macros.json", language.macro_manifests()),
    ):
        assert json.loads((_FOLDER / file).read_text("utf-8")) == manifests


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_an_operators_class_is_the_operator(name: str) -> None:
    found = load(_ALL[name].definition_version.code_ref, _BASES["OP"])
    assert issubclass(found, Operator)
    assert found.signature() == OPERATORS[name]


def test_an_operators_arguments_are_checked_like_a_call() -> None:
    assert not _violations("REF", {"x": "close / open", "n": 3})
    assert _violations("REF", {"x": "close /", "n": -1}) == {"config.x", "config.n"}
    assert _violations("REF", {"x": "close"}) == {"config.n"}
    assert _violations("CORR", {"x": "close", "y": 1, "n": 2, "z": 1}) == {"config.z"}
    assert not _violations("WINSORIZE", {"x": "close"})
    assert _violations("WINSORIZE", {"x": "close", "p": 0.6}) == {"config.p"}


@pytest.mark.parametrize("name", sorted(MACROS))
def test_a_macros_smallest_arguments_make_an_expression(name: str) -> None:
    macro = MACROS[name]
    schema = _plain(_ALL[name].definition_version.parameters_schema)["properties"]
    arguments = [f"{schema[p]['minimum']:g}" if "minimum" in schema[p] else "close" for p in macro.parameters]
    parse(f"{name}({', '.join(arguments)})", macros=MACROS)


def test_a_models_features_are_checked() -> None:
    feature = {"name": "momentum", "expression": "REF(close, 1)", "transforms": [{"name": "standardize"}]}
    target = {"expression": "PCT(close, 5)", "horizon": 5}
    for name in ("ridge", "hist_gradient_boosting", "logistic_classifier"):
        assert not _violations(name, {"features": [feature], "target": target})
        assert _violations(name, {"features": [], "target": {}}) == {
            "config.features",
            "config.target.expression",
        }
        bad = {**feature, "expression": "REF(close", "transforms": [{"name": "square"}]}
        assert _violations(name, {"features": [bad], "target": target}) == {
            "config.features[0].expression",
            "config.features[0].transforms[0].name",
        }


@pytest.mark.parametrize("name", ["ridge", "hist_gradient_boosting", "logistic_classifier"])
def test_a_models_settings_of_training_have_the_defaults_of_the_worker(name: str) -> None:
    known = _plain(_ALL[name].definition_version.parameters_schema)["properties"]
    settings = {field.name: field.default for field in dataclasses.fields(TrainingSettings)}
    assert {key: known[key]["default"] for key in settings} == {**settings, "validation_share": 0.2}
    assert settings["validation_share"] == Decimal("0.2")
    feature = {"name": "momentum", "expression": "REF(close, 1)"}
    given = {"features": [feature], "target": {"expression": "PCT(close, 5)"}}
    assert not _violations(name, {**given, "validation_share": 0.5, "embargo": 5, "refit": False, "seed": 1})
    wrong = {"validation_share": 1, "embargo": -1, "refit": "no", "seed": 0.5}
    assert _violations(name, {**given, **wrong}) == {f"config.{key}" for key in wrong}


def test_a_released_version_never_changes() -> None:
    present = compute_present()
    changed = [key for key, content in read_released().items() if present.get(key) != content]
    assert not changed, (
        "an installation that has such a version refuses another one: publish it as a new version"
    )
