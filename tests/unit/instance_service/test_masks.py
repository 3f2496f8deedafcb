"""Field masks over instances."""

from typing import Any

import pytest
from google.protobuf import json_format

from instance_service.resources.instances.masks import apply_mask
from optaic.instance.v1.instance_pb2 import Instance
from servicekit.errors import InvalidArgumentError

_DATASET = {
    "name": "d",
    "labels": {"a": "1"},
    "dataset": {
        "pipeline": {
            "definitionId": "i", "definitionName": "n", "definitionVersionId": "v", "definitionVersion": "1.0.0",
            "config": {"x": 1},
        },
        "store": {"definitionName": "delta"},
        "pipelineInstanceId": "p",
    },
    "schedule": {"manual": {}},
}  # fmt: skip


def _instance(given: dict[str, Any]) -> Instance:
    return json_format.ParseDict(given, Instance())


def _merged(given: dict[str, Any], *paths: str) -> dict[str, Any]:
    return json_format.MessageToDict(apply_mask(_instance(_DATASET), _instance(given), paths))


def test_only_masked_fields_change() -> None:
    merged = _merged({"name": "other", "owner": "ada", "labels": {"b": "2"}}, "labels", "owner")
    assert (merged["name"], merged["owner"], merged["labels"]) == ("d", "ada", {"b": "2"})


def test_a_masked_field_without_a_value_is_cleared() -> None:
    merged = _merged({}, "schedule", "labels", "dataset.store")
    assert not {"schedule", "labels"} & set(merged)
    assert "store" not in merged["dataset"]


def test_a_config_is_replaced_as_a_whole_and_keeps_its_version() -> None:
    pipeline = _merged({"dataset": {"pipeline": {"config": {"y": 2}}}}, "dataset.pipeline.config")["dataset"]
    assert pipeline["pipeline"]["config"] == {"y": 2}
    assert pipeline["pipeline"]["definitionVersionId"] == "v"


def test_a_changed_reference_clears_the_fields_that_it_replaces() -> None:
    version = _merged(
        {"dataset": {"pipeline": {"definitionVersion": "2.0.0"}}}, "dataset.pipeline.definition_version"
    )["dataset"]["pipeline"]
    assert version["definitionVersion"] == "2.0.0"
    assert "definitionVersionId" not in version
    name = _merged({"dataset": {"pipeline": {"definitionName": "m"}}}, "dataset.pipeline.definition_name")
    assert set(name["dataset"]["pipeline"]) == {"definitionName", "config"}


def test_output_only_parts_survive_a_replaced_spec() -> None:
    merged = _merged({"dataset": {"pipeline": {"definitionName": "m"}, "pipelineInstanceId": "x"}}, "dataset")
    assert merged["dataset"] == {"pipeline": {"definitionName": "m"}, "pipelineInstanceId": "p"}


def test_a_star_means_every_mutable_field() -> None:
    merged = _merged({"name": "e", "dataset": {"pipeline": {"definitionName": "m"}}}, "*")
    assert merged == {
        "name": "e",
        "dataset": {"pipeline": {"definitionName": "m"}, "pipelineInstanceId": "p"},
    }


def test_an_optional_number_that_is_absent_is_cleared() -> None:
    current = _instance({"name": "b", "backtest": {"config": {"topN": 3}}})
    merged = apply_mask(current, Instance(), ["backtest.config.top_n"])
    assert not merged.backtest.config.HasField("top_n")


@pytest.mark.parametrize(
    "path",
    ["", "instance_id", "project_id", "kind", "state", "etag", "flows", "signal", "signal.contract", "backtest",
     "dataset.nothing", "dataset.pipeline_instance_id", "dataset.pipeline.config.x", "labels.a", "*.name",
     "upstream_refs.role", "config", "definition_id"],
)  # fmt: skip
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        _merged({}, path)
    assert refused.value.reason == "IMMUTABLE_FIELD"
