"""A model's champion: checked in the registry, recorded with who and why, carried out and kept so."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from instance_service.ports import Ensured, ModelVersion, OutsideUnavailableError
from optaic.common.v1.flow_pb2 import FLOW_KIND_INFERENCE
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DEGRADED, Flow, Instance
from optaic.instance.v1.instance_service_pb2 import (
    DeleteInstanceRequest,
    ListInstanceRevisionsRequest,
    ListModelPromotionsRequest,
    PromoteModelVersionRequest,
    RemoveChampionRequest,
)
from support.definitions import model, publish
from support.instance_service import RunningInstanceService, refusal
from support.polling import eventually


@pytest.fixture
async def made(service: RunningInstanceService) -> Instance:
    """A model with two versions in the registry."""
    project = await service.project()
    await publish(service, "linear")
    prices = await service.prices(project.project_id)
    created = await service.create(model(project.project_id, "m", prices.instance_id))
    created = await service.until_active(created.instance_id)
    for version in ("1", "2"):
        service.experiments.versions[_name(created), version] = ModelVersion(
            is_ready=True,
            run_id=f"run-{version}",
            metrics={"rmse": 0.5, "broken": float("nan")},
            training_run_id=f"training-{version}",
        )
    return created


def _name(instance: Instance) -> str:
    return f"default.{instance.instance_id}"


async def _promote(
    service: RunningInstanceService, instance: Instance, version: str, **fields: Any
) -> Instance:
    request = PromoteModelVersionRequest(
        instance_id=instance.instance_id, model_version=version, reason=f"try {version}", **fields
    )
    promoted: Instance = await service.instances.PromoteModelVersion(request)
    return promoted


async def _promotions(service: RunningInstanceService, instance: Instance, **fields: Any) -> list[str]:
    request = ListModelPromotionsRequest(instance_id=instance.instance_id, **fields)
    answer = await service.instances.ListModelPromotions(request)
    return [promotion.model_version for promotion in answer.promotions]


def _champion(service: RunningInstanceService, instance: Instance) -> str:
    return service.experiments.stored[_name(instance)][1].champion


def _inference_flow(instance: Instance) -> Flow:
    (flow,) = (flow for flow in instance.flows if flow.flow_kind == FLOW_KIND_INFERENCE)
    return flow


def _inference(instance: Instance) -> str:
    return _inference_flow(instance).compute_fingerprint


def _reads_training(instance: Instance) -> bool:
    return any(edge.role == "model" for edge in _inference_flow(instance).upstreams)


async def _remove(service: RunningInstanceService, instance: Instance, **fields: Any) -> Instance:
    request = RemoveChampionRequest(instance_id=instance.instance_id, reason="worse", **fields)
    removed: Instance = await service.instances.RemoveChampion(request)
    return removed


async def test_a_model_is_paired_with_an_experiment_and_a_project(
    service: RunningInstanceService, made: Instance
) -> None:
    experiment_id, experiment = service.experiments.stored[_name(made)]
    assert made.model.mlflow_experiment_id == experiment_id
    assert experiment.title == f"m.{made.instance_id}"
    assert made.model.evidently_project_id == service.projects.stored[_name(made)][0] == made.instance_id
    assert not made.model.mlflow_registered_model_name
    await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=made.instance_id))
    await service.clear_lineage(made.instance_id)
    await eventually(lambda: not service.experiments.stored and not service.projects.stored)
    assert service.experiments.archived == {_name(made): experiment_id}


async def test_a_promotion_is_a_revision_with_author_and_reason(
    service: RunningInstanceService, made: Instance
) -> None:
    promoted = await _promote(service, made, "2")
    assert promoted.revision == made.revision + 1
    assert promoted.model.mlflow_registered_model_name == _name(made)
    champion = promoted.model.champion
    assert (champion.model_version, champion.run_id, champion.author) == ("2", "run-2", "developer")
    assert champion.training_run_id == "training-2"
    assert (champion.reason, dict(champion.metrics)) == ("try 2", {"rmse": 0.5})
    assert champion.HasField("create_time")
    assert _champion(service, made) == "2"
    assert _inference(promoted) != _inference(made)
    listed = await service.instances.ListInstanceRevisions(
        ListInstanceRevisionsRequest(instance_id=made.instance_id)
    )
    assert (listed.revisions[0].author, listed.revisions[0].reason) == ("developer", "try 2")


async def test_promoting_an_earlier_version_reverses_it(
    service: RunningInstanceService, made: Instance
) -> None:
    first = await _promote(service, made, "1")
    await _promote(service, made, "2")
    back = await _promote(service, made, "1")
    assert (_champion(service, made), _inference(back)) == ("1", _inference(first))
    again = await _promote(service, made, "1")
    assert again.revision == back.revision
    assert await _promotions(service, made) == ["1", "2", "1"]
    page = await service.instances.ListModelPromotions(
        ListModelPromotionsRequest(instance_id=made.instance_id, page_size=2)
    )
    assert await _promotions(service, made, page_size=2, page_token=page.next_page_token) == ["1"]


async def test_while_there_is_a_champion_inference_does_not_read_the_training(
    service: RunningInstanceService, made: Instance
) -> None:
    assert _reads_training(made)
    first = await _promote(service, made, "1")
    assert not _reads_training(first)
    assert _inference_flow(first).fingerprint_change == "model version 1 was promoted"
    second = await _promote(service, made, "2")
    assert not _reads_training(second)
    assert _inference_flow(second).fingerprint_change == "champion moved from version 1 to 2"
    removed = await _remove(service, made)
    assert _reads_training(removed)
    assert _inference(removed) == _inference(made), "it is configured as before"
    assert _inference_flow(removed).fingerprint_change == "champion 2 was removed"
    # All other flows compute the same as before, whatever is promoted.
    others = [
        {flow.flow_kind: flow.compute_fingerprint for flow in each.flows} for each in (made, second, removed)
    ]
    for fingerprints in others:
        del fingerprints[FLOW_KIND_INFERENCE]
    assert others[0] == others[1] == others[2]


async def test_a_champion_is_removed_with_author_and_reason(
    service: RunningInstanceService, made: Instance
) -> None:
    unchanged = await _remove(service, made)
    assert unchanged.revision == made.revision, "there was none"
    promoted = await _promote(service, made, "2")
    checked = await _remove(service, made, validate_only=True)
    assert not checked.model.HasField("champion")
    stale = await refusal(_remove(service, made, etag=made.etag))
    assert stale.reason == "ETAG_MISMATCH"
    assert _champion(service, made) == "2"
    removed = await _remove(service, made, request_id="once")
    assert removed.revision == promoted.revision + 1
    assert not removed.model.HasField("champion")
    await eventually(lambda: _champion(service, made) == "")
    assert (await _remove(service, made, request_id="once")).revision == removed.revision
    listed = await service.instances.ListModelPromotions(
        ListModelPromotionsRequest(instance_id=made.instance_id)
    )
    assert [(each.model_version, each.author, each.reason) for each in listed.promotions] == [
        ("", "developer", "worse"),
        ("2", "developer", "try 2"),
    ]
    other = await service.prices(made.project_id, "other")
    unsupported = await refusal(_remove(service, other))
    assert (unsupported.reason, list(unsupported.fields)) == ("UNSUPPORTED_KIND", ["instance_id"])


async def test_a_request_is_carried_out_once(service: RunningInstanceService, made: Instance) -> None:
    first = await _promote(service, made, "1", request_id="once")
    await _promote(service, made, "2")
    service.experiments.break_down()
    again = await _promote(service, made, "1", request_id="once")
    assert again.revision == first.revision
    reused = await refusal(_promote(service, made, "2", request_id="once"))
    assert reused.reason == "REQUEST_ID_REUSED"
    service.experiments.recover()
    assert await _promotions(service, made) == ["2", "1"]


async def test_a_refused_promotion_changes_nothing(service: RunningInstanceService, made: Instance) -> None:
    service.experiments.versions[_name(made), "3"] = ModelVersion(is_ready=True, run_id="", metrics={})
    before = await service.row_counts()
    for version in ("3", "4", "none"):
        unknown = await refusal(_promote(service, made, version))
        assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_VERSION_NOT_FOUND")
        assert list(unknown.fields) == ["model_version"]
    stale = await refusal(_promote(service, made, "1", etag="r99"))
    assert stale.reason == "ETAG_MISMATCH"
    checked = await _promote(service, made, "1", validate_only=True, request_id="dry")
    assert checked.model.champion.model_version == "1"
    service.experiments.break_down()
    away = await refusal(_promote(service, made, "1", request_id="away"))
    assert (away.code, away.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    service.experiments.recover()
    assert await service.row_counts() == before
    assert (await _promote(service, made, "1", request_id="away")).model.champion.model_version == "1"
    other = await service.prices(made.project_id, "other")
    unsupported = await refusal(_promote(service, other, "1"))
    assert (unsupported.reason, list(unsupported.fields)) == ("UNSUPPORTED_KIND", ["instance_id"])


async def test_a_decision_survives_a_registry_that_goes_away_before_the_alias_is_set(
    service: RunningInstanceService, made: Instance
) -> None:
    healthy = service.experiments.ensure

    async def fail(_: Any) -> Ensured:
        raise OutsideUnavailableError("MlflowUnavailable", "gone")

    service.experiments.ensure = fail  # type: ignore[method-assign, assignment]  # as the outside system is made to behave
    promoted = await _promote(service, made, "2")
    assert promoted.model.champion.model_version == "2"
    await service.until(made.instance_id, lambda one: one.state == INSTANCE_STATE_DEGRADED)
    assert _champion(service, made) == ""
    service.experiments.ensure = healthy  # type: ignore[method-assign]  # as the outside system is made to behave
    await service.until_active(made.instance_id)
    assert _champion(service, made) == "2"


async def test_an_edited_alias_is_repaired(service: RunningInstanceService, made: Instance) -> None:
    await _promote(service, made, "2")
    service.experiments.edit(_name(made), champion="1")
    await eventually(lambda: _champion(service, made) == "2")
