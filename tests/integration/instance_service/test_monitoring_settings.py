"""What an instance says of its monitoring: only its monitoring flow depends on it."""

from __future__ import annotations

from typing import Any

import pytest

from optaic.common.v1.flow_pb2 import FLOW_KIND_MONITORING
from optaic.instance.v1.instance_pb2 import Instance
from support.definitions import model, publish
from support.instance_service import RunningInstanceService, refusal

PIPELINE = {"definition_name": "sp500_prices", "config": {"symbols": ["AAPL"]}}
DEFAULTS = {
    "window_sessions": 63,
    "thresholds": {
        "max_drift_share": 0.5, "max_psi": 0.25, "max_ks": 0.25, "max_js": 0.1, "max_missing_share": 0.1,
        "max_outlier_share": 0.01, "max_duplicate_share": 0, "min_realised_ic": 0, "min_hit_rate": 0,
    },
}  # fmt: skip


def _fingerprints(instance: Instance) -> dict[int, str]:
    return {flow.flow_kind: flow.compute_fingerprint for flow in instance.flows}


def _only_monitoring_changed(before: Instance, after: Instance) -> bool:
    one, other = _fingerprints(before), _fingerprints(after)
    return {kind for kind in one if one[kind] != other[kind]} == {FLOW_KIND_MONITORING}


async def test_settings_of_a_dataset_change_only_its_monitoring(service: RunningInstanceService) -> None:
    project = await service.project()
    given: dict[str, Any] = {
        "project_id": project.project_id,
        "name": "watched",
        "dataset": {"pipeline": PIPELINE, "monitoring_enabled": True},
    }
    plain = await service.create(given)
    said = await service.create(
        {**given, "name": "said", "dataset": {**given["dataset"], "monitoring": DEFAULTS}}
    )
    assert said.dataset.monitoring.window_sessions == 63
    changed = await service.update(
        plain.instance_id, {"dataset": {"monitoring": DEFAULTS}}, "dataset.monitoring"
    )
    assert _fingerprints(changed) == _fingerprints(plain), "saying a default changes nothing"
    narrow = await service.update(
        plain.instance_id, {"dataset": {"monitoring": {"window_sessions": 21}}}, "dataset.monitoring"
    )
    assert _only_monitoring_changed(changed, narrow)
    told = {flow.flow_kind: flow.fingerprint_change for flow in narrow.flows}
    assert told[FLOW_KIND_MONITORING] == "its monitoring changed: window_sessions from 63 to 21"
    back = await service.update(plain.instance_id, {"dataset": {}}, "dataset.monitoring")
    assert _fingerprints(back) == _fingerprints(plain)


async def test_settings_of_a_model_change_only_its_monitoring(service: RunningInstanceService) -> None:
    await publish(service, "linear")
    project = await service.project()
    prices = await service.prices(project.project_id)
    given = model(project.project_id, "m", prices.instance_id)
    plain = await service.create(given)
    strict = {"monitoring": {"thresholds": {"max_psi": 0.1}}}
    created = await service.create({**given, "name": "strict", "model": strict})
    assert created.model.monitoring.thresholds.max_psi == 0.1
    changed = await service.update(plain.instance_id, {"model": strict}, "model.monitoring")
    assert _only_monitoring_changed(plain, changed)
    assert changed.model.evidently_project_id == plain.model.evidently_project_id
    deeper = await service.update(
        plain.instance_id,
        {"model": {"monitoring": {"thresholds": {"max_psi": 0.2}}}},
        "model.monitoring.thresholds.max_psi",
    )
    assert deeper.model.monitoring.thresholds.max_psi == 0.2
    kept = await service.update(plain.instance_id, {"description": "other"}, "description")
    assert kept.model.monitoring == deeper.model.monitoring


@pytest.mark.parametrize("path", ["model", "model.champion", "model.evidently_project_id"])
async def test_the_output_fields_of_a_model_cannot_be_set(service: RunningInstanceService, path: str) -> None:
    await publish(service, "linear")
    project = await service.project()
    prices = await service.prices(project.project_id)
    output = {"champion": {"model_version": "7"}, "evidently_project_id": "x"}
    created = await service.create({**model(project.project_id, "m", prices.instance_id), "model": output})
    assert not created.model.HasField("champion")
    refused = await refusal(service.update(created.instance_id, {"model": output}, path))
    assert refused.field_reasons == {"update_mask.paths[0]": "IMMUTABLE_FIELD"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"window_sessions": 0}, "window_sessions"),
        ({"reference_sessions": -1}, "reference_sessions"),
        ({"thresholds": {"max_drift_share": 1.5}}, "thresholds.max_drift_share"),
        ({"thresholds": {"min_realised_ic": -2}}, "thresholds.min_realised_ic"),
    ],
)
async def test_settings_without_a_meaning_are_refused(
    service: RunningInstanceService, given: dict[str, Any], field: str
) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    refused = await refusal(
        service.update(prices.instance_id, {"dataset": {"monitoring": given}}, "dataset.monitoring")
    )
    assert f"instance.dataset.monitoring.{field}" in refused.fields
