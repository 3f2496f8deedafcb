"""The OpenAPI document: valid, complete, and in the words of the contracts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

import optaic
from gateway import comments, openapi
from gateway.methods import find_methods
from support.methods import ALLOWED, METHODS, PEOPLE

TEXTS = comments.read(Path(optaic.__file__).with_name("comments.json"))


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(openapi.Document(find_methods()).read())


def test_the_document_is_valid(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_the_methods_are_those_that_people_may_call(document: Any) -> None:
    expected = {
        ("" if "audit" not in contract else f"/{service}") + f"/{contract}/{method.name}"
        for service, method in METHODS
        if ALLOWED[method.name] & set(PEOPLE)
        for contract in [method.containing_service.full_name]
    }
    assert set(document["paths"]) == expected | {
        "/runs/{run_id}/artifacts/{name}",
        *(
            f"{place}{what}"
            for place in ("/runs/{run_id}/artifacts/{name}",)
            for what in ("/rows", "/statistics")
        ),
        *("/data/{run_id}", "/data/{run_id}/statistics"),
    }


def test_every_method_and_every_field_of_a_request_says_what_it_is(document: Any) -> None:
    for path, item in document["paths"].items():
        if "get" in item:
            continue
        assert item["post"]["description"], path
        assert item["post"]["requestBody"]["content"]
    schemas = document["components"]["schemas"]
    requests = {name: schema for name, schema in schemas.items() if name.endswith("Request")}
    fields = {
        f"{name}.{field}": value
        for name, schema in requests.items()
        for field, value in schema["properties"].items()
    }
    assert [name for name, value in fields.items() if not value.get("description")] == []
    run = "optaic.run.v1.SubmitRunRequest"
    assert fields[f"{run}.instanceId"]["type"] == "string"
    assert fields[f"{run}.requestId"]["description"] == TEXTS[f"{run}.request_id"]


def test_every_reference_leads_somewhere(document: Any) -> None:
    def references(node: Any) -> Any:
        if isinstance(node, dict):
            yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
            for each in node.values():
                yield from references(each)
        elif isinstance(node, list):
            for each in node:
                yield from references(each)

    for reference in set(references(document)):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
