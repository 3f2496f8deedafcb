"""Publishing and reading definitions."""

from importlib import resources
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from optaic.definition.v1.definition_pb2 import (
    DEFINITION_KIND_PIPELINE,
    DEFINITION_STATE_ACTIVE,
    DEFINITION_STATE_DEPRECATED,
    DEFINITION_STATE_DRAFT,
)
from optaic.definition.v1.definition_service_pb2 import (
    DeprecateDefinitionVersionRequest,
    GetDefinitionRequest,
    GetDefinitionVersionRequest,
    ListDefinitionsRequest,
    ListDefinitionVersionsRequest,
    PublishDefinitionRequest,
)
from optaic.plugins.registry import parse_manifest
from support.instance_service import RunningInstanceService, refusal

# What was published once never changes.
_RELEASED = {
    "file": "1fd037cef782543e629fc8625cfb12a225f4120a19332423385e3a54e568b83a",
    "sql": "b16aecad9271101985fb1ca04b9c91c548f9a6d5d510508ddf1841cd39d042e5",
}


def _request(
    version: str = "1.0.0", schema: dict[str, Any] | None = None, **fields: Any
) -> PublishDefinitionRequest:
    given = {
        "name": "mine",
        "kind": "DEFINITION_KIND_PIPELINE",
        "definitionVersion": {
            "version": version,
            "codeRef": "mine.pipelines:Mine",
            "parametersSchema": schema or {},
        },
        **fields,
    }
    return json_format.ParseDict(given, PublishDefinitionRequest())


async def test_the_built_ins_are_there(service: RunningInstanceService) -> None:
    listed = await service.definitions.ListDefinitions(ListDefinitionsRequest(page_size=1000))
    folder = resources.files("instance_service") / "builtin"
    shipped = {  # the newest of a name comes last
        one.name: one.definition_version.version
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
        for one in parse_manifest(entry.read_text())
    }
    assert {item.name: item.newest_version.version for item in listed.definitions} == shipped


async def test_earlier_shipped_versions_exist_beside_the_newest(
    service: RunningInstanceService,
) -> None:
    listed = await service.definitions.ListDefinitions(ListDefinitionsRequest(page_size=1000))
    for item in listed.definitions:
        if item.name in {"file", "sql"}:
            answer = await service.definitions.ListDefinitionVersions(
                ListDefinitionVersionsRequest(definition_id=item.definition_id)
            )
            versions = {each.version: each.content_hash for each in answer.definition_versions}
            assert versions["1.1.0"] == _RELEASED[item.name]
            assert sorted(versions) == ["1.1.0", "1.2.0"]


async def test_the_same_content_again_is_the_same_version(service: RunningInstanceService) -> None:
    first = await service.definitions.PublishDefinition(_request())
    again = await service.definitions.PublishDefinition(_request(description="another text"))
    assert again == first
    conflict = await refusal(service.definitions.PublishDefinition(_request(schema={"type": "object"})))
    assert (conflict.code, conflict.reason) == (grpc.StatusCode.ALREADY_EXISTS, "VERSION_CONFLICT")
    assert list(conflict.fields) == ["definition_version.version"]


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "wrong"}, "type"),
        ({"properties": {"a": {"minLength": "x"}}}, "properties.a.minLength"),
        ({"properties": {"a": {"$ref": "http://localhost/a.json"}}}, "properties.a.$ref"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "properties.a.$ref"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema"),
    ],
)
async def test_a_bad_schema_is_refused_with_its_path(
    service: RunningInstanceService, schema: dict[str, Any], path: str
) -> None:
    refused = await refusal(service.definitions.PublishDefinition(_request(schema=schema)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SCHEMA")
    assert f"definition_version.parameters_schema.{path}" in refused.fields


async def test_the_newest_version_is_the_highest_active_one(service: RunningInstanceService) -> None:
    versions = [
        await service.definitions.PublishDefinition(_request(version))
        for version in ("1.9.0", "1.10.0", "2.0.0-rc.1", "1.2.0")
    ]
    definition_id = versions[0].definition_id
    pages, token = [], ""
    while True:
        request = ListDefinitionVersionsRequest(definition_id=definition_id, page_size=3, page_token=token)
        page = await service.definitions.ListDefinitionVersions(request)
        pages += [item.version for item in page.definition_versions]
        token = page.next_page_token
        if not token:
            break
    assert pages == ["2.0.0-rc.1", "1.10.0", "1.9.0", "1.2.0"]
    deprecate = DeprecateDefinitionVersionRequest(
        definition_version_id=versions[2].definition_version_id, reason="not ready"
    )
    deprecated = await service.definitions.DeprecateDefinitionVersion(deprecate)
    assert deprecated.state == DEFINITION_STATE_DEPRECATED
    assert await service.definitions.DeprecateDefinitionVersion(deprecate) == deprecated
    named = GetDefinitionRequest(kind=DEFINITION_KIND_PIPELINE, name="mine")
    assert (await service.definitions.GetDefinition(named)).newest_version.version == "1.10.0"


async def test_definitions_are_listed_by_state_and_name(service: RunningInstanceService) -> None:
    await service.definitions.PublishDefinition(_request(draft=True))
    await service.definitions.PublishDefinition(_request(name="min_e"))

    async def names(**fields: Any) -> list[str]:
        listed = await service.definitions.ListDefinitions(ListDefinitionsRequest(**fields))
        return [item.name for item in listed.definitions]

    assert await names(state=DEFINITION_STATE_DRAFT) == ["mine"]
    assert await names(name_prefix="min", kind=DEFINITION_KIND_PIPELINE) == ["min_e", "mine"]
    assert await names(name_prefix="min_") == ["min_e"]
    assert await names(name_prefix="min", kind=DEFINITION_KIND_PIPELINE, state=DEFINITION_STATE_ACTIVE) == [
        "min_e"
    ]


async def test_unknown_definitions_are_not_found(service: RunningInstanceService) -> None:
    nobody = "01900000-0000-7000-8000-000000000001"
    one = await refusal(service.definitions.GetDefinition(GetDefinitionRequest(definition_id=nobody)))
    assert (one.code, one.reason) == (grpc.StatusCode.NOT_FOUND, "DEFINITION_NOT_FOUND")
    request = GetDefinitionVersionRequest(definition_version_id=nobody)
    two = await refusal(service.definitions.GetDefinitionVersion(request))
    assert (two.code, two.reason) == (grpc.StatusCode.NOT_FOUND, "DEFINITION_VERSION_NOT_FOUND")
