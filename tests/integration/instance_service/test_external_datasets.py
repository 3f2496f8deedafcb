"""Datasets whose data another system writes: what goes together with them, and what does not."""

from typing import Any

import pytest
from google.protobuf import json_format

from optaic.common.v1.flow_pb2 import FLOW_KIND_MONITORING, FLOW_KIND_REFRESH
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.instance.v1.instance_pb2 import Instance
from support.instance_service import RunningInstanceService, derived, refusal

URL = "file:///exports/{version}.parquet"
EXTERNAL = {"definitionName": "external"}
FILE = {"definitionName": "file", "config": {"url": "/exports/a.parquet"}}
SPEC = {"pipeline": EXTERNAL, "store": {**EXTERNAL, "config": {"url": URL}}}


@pytest.fixture
async def project_id(service: RunningInstanceService) -> str:
    """An empty project."""
    return (await service.project()).project_id


def _given(project_id: str, spec: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"projectId": project_id, "name": "held", "dataset": spec or SPEC, **fields}


async def test_the_refresh_of_an_external_dataset_says_that_no_run_computes_it(
    service: RunningInstanceService, project_id: str
) -> None:
    held = await service.create(_given(project_id, {**SPEC, "monitoringEnabled": True}))
    assert {flow.flow_kind: flow.is_external for flow in held.flows} == {
        FLOW_KIND_REFRESH: True,
        FLOW_KIND_MONITORING: False,
    }
    reader = await service.create(derived(project_id, "reader", held.instance_id))
    assert not any(flow.is_external for flow in reader.flows)
    changed = await service.update(held.instance_id, {"description": "prices of the vendor"}, "description")
    assert changed.flows[0].is_external


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({**SPEC, "pipeline": FILE}, "instance.dataset.pipeline"),
        ({"pipeline": EXTERNAL}, "instance.dataset.pipeline"),
        ({**SPEC, "store": EXTERNAL}, "instance.dataset.store.config.url"),
        (
            {**SPEC, "store": {**EXTERNAL, "config": {"url": "ftp://host/a"}}},
            "instance.dataset.store.config.url",
        ),
        ({**SPEC, "store": {**EXTERNAL, "config": {"url": "a::b"}}}, "instance.dataset.store.config.url"),
        (
            {**SPEC, "store": {**EXTERNAL, "config": {"url": "https://{version}/a.parquet"}}},
            "instance.dataset.store.config.url",
        ),
        (
            {**SPEC, "store": {**EXTERNAL, "config": {"url": "/a", "storage_options": {"anon": True}}}},
            "instance.dataset.store.config.storage_options.anon",
        ),
    ],
)
async def test_pipeline_and_store_are_both_external_or_neither(
    service: RunningInstanceService, project_id: str, spec: dict[str, Any], field: str
) -> None:
    refused = await refusal(service.create(_given(project_id, spec)))
    assert field in refused.fields, refused.fields


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"schedule": {"interval": {"minutes": 60}}}, "instance.schedule"),
        ({"autoRefresh": {"mode": "MODE_ALL_UPSTREAMS"}}, "instance.auto_refresh"),
        ({"probeInterval": "60s"}, "instance.probe_interval"),
    ],
)
async def test_what_would_run_it_is_refused(
    service: RunningInstanceService, project_id: str, fields: dict[str, Any], field: str
) -> None:
    refused = await refusal(service.create(_given(project_id, **fields)))
    assert list(refused.fields) == [field]


async def test_it_reads_no_upstreams_and_is_no_signal(
    service: RunningInstanceService, project_id: str
) -> None:
    prices = await service.prices(project_id)
    reference = {"resourceId": prices.instance_id, "role": "input"}
    refused = await refusal(service.create(_given(project_id, upstreamRefs=[reference])))
    assert list(refused.fields) == ["instance.upstream_refs[0]"]
    signal = {"projectId": project_id, "name": "held", "signal": {"dataset": SPEC}}
    refused = await refusal(service.create(signal))
    assert list(refused.fields) == ["instance.signal.dataset.store"]


async def test_a_dataset_stays_external_or_stays_computed(
    service: RunningInstanceService, project_id: str
) -> None:
    held = await service.create(_given(project_id))
    computed = await service.create({**_given(project_id, {"pipeline": FILE}), "name": "computed"})
    for instance, spec in (
        (held, {"pipeline": FILE, "store": {"definitionName": "delta"}}),
        (computed, SPEC),
    ):
        refused = await refusal(service.update(instance.instance_id, {"dataset": spec}, "dataset"))
        assert list(refused.fields) == ["instance.dataset.store"], refused.fields
    moved = {**SPEC, "store": {**EXTERNAL, "config": {"url": "file:///exports/moved.parquet"}}}
    changed: Instance = await service.update(held.instance_id, {"dataset": moved}, "dataset")
    assert changed.flows[0].is_external
    assert changed.flows[0].compute_fingerprint != held.flows[0].compute_fingerprint


_URL = {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}


@pytest.mark.parametrize(
    ("kind", "version", "field"),
    [
        ("STORE", {"parametersSchema": _URL}, ""),
        ("STORE", {"parametersSchema": {**_URL, "required": []}}, "parameters_schema"),
        (
            "STORE",
            {"parametersSchema": {**_URL, "properties": {"url": {"type": "integer"}}}},
            "parameters_schema",
        ),
        ("STORE", {}, "parameters_schema"),
        ("PIPELINE", {"readsNothing": True}, ""),
        ("PIPELINE", {}, "reads_nothing"),
        ("ACCESSOR", {}, "is_external"),
        ("ML_MODULE", {}, "is_external"),
    ],
)
async def test_a_definition_says_where_its_data_is_or_computes_nothing(
    service: RunningInstanceService, kind: str, version: dict[str, Any], field: str
) -> None:
    given = {
        "name": "held",
        "kind": f"DEFINITION_KIND_{kind}",
        "definitionVersion": {"version": "1.0.0", "codeRef": "a:B", "isExternal": True, **version},
    }
    call = service.definitions.PublishDefinition(json_format.ParseDict(given, PublishDefinitionRequest()))
    if field:
        assert list((await refusal(call)).fields) == [f"definition_version.{field}"]
    else:
        published: DefinitionVersion = await call
        assert published.is_external
