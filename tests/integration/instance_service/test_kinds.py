"""Experiments, models, optimizers, and backtests with one: definitions, configs, rules, edges and fingerprints."""

from typing import Any, NamedTuple

import grpc
import pytest

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.definition.v1.definition_pb2 import COMPATIBILITY_BREAKING, COMPATIBILITY_COMPATIBLE
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_ACTIVE, EdgeKind, Instance
from optaic.instance.v1.instance_service_pb2 import GetInstanceRequest
from servicekit.enums import enum_word
from support.definitions import MANIFESTS, MODEL_CONFIG, experiment, model, optimizer, publish
from support.instance_service import RunningInstanceService, derived, refusal

INVALID = grpc.StatusCode.INVALID_ARGUMENT


class World(NamedTuple):
    """A project with a dataset and a signal."""

    project_id: str
    prices: str
    signal: str


@pytest.fixture
async def world(service: RunningInstanceService) -> World:
    """Definitions of the three kinds, and something to read."""
    for name in ("BLEND", "linear", "halves"):
        await publish(service, name)
    project = await service.project()
    prices = await service.prices(project.project_id)
    signal = await service.signal(project.project_id, "signal", prices.instance_id)
    return World(project.project_id, prices.instance_id, signal.instance_id)


def _edges(instance: Instance) -> dict[str, set[tuple[str, str, str, str]]]:
    """Return (upstream, its flow, role, kind) by flow, in words."""
    return {
        enum_word(FlowKind, flow.flow_kind): {
            (
                edge.upstream.instance_id,
                enum_word(FlowKind, edge.upstream.flow_kind),
                edge.role,
                enum_word(EdgeKind, edge.kind),
            )
            for edge in flow.upstreams
        }
        for flow in instance.flows
    }


def _fingerprints(instance: Instance) -> list[str]:
    return [flow.compute_fingerprint for flow in instance.flows]


async def test_an_experiment_previews_its_inputs(service: RunningInstanceService, world: World) -> None:
    created = await service.create(experiment(world.project_id, "e", world.prices, world.signal))
    assert created.state == INSTANCE_STATE_ACTIVE
    assert (created.definition_name, created.definition_version) == ("BLEND", "1.0.0")
    assert _edges(created) == {
        "preview": {(world.prices, "refresh", "input", "data"), (world.signal, "refresh", "input", "signal")}
    }


async def test_a_model_has_three_flows_that_read_each_other(
    service: RunningInstanceService, world: World
) -> None:
    created = await service.create(model(world.project_id, "m", world.signal, world.prices))
    own = created.instance_id
    assert _edges(created) == {
        "training": {
            (world.signal, "refresh", "features", "feature"),
            (world.prices, "refresh", "target", "feature"),
        },
        "inference": {
            (world.signal, "refresh", "features", "feature"),
            (own, "training", "model", "model"),
        },
        "monitoring": {
            (world.signal, "refresh", "features", "feature"),
            (world.prices, "refresh", "target", "feature"),
            (own, "inference", "monitored", "model"),
        },
    }
    assert all(flow.prefect_deployment_id for flow in created.flows)


async def test_a_backtest_may_have_an_optimizer(service: RunningInstanceService, world: World) -> None:
    made = await service.create(optimizer(world.project_id, "o", world.signal, world.prices))
    assert _edges(made) == {
        "optimize": {
            (world.signal, "refresh", "signal", "signal"),
            (world.prices, "refresh", "covariance", "data"),
        }
    }
    given: dict[str, Any] = {
        "projectId": world.project_id,
        "name": "b",
        "backtest": {"signals": {"primary": world.signal}},
    }
    plain = await service.create({**given, "name": "plain"})
    given["upstreamRefs"] = [{"resourceId": made.instance_id, "role": "optimizer"}]
    created = await service.create(given)
    assert _edges(created)["backtest"] == {
        *_edges(plain)["backtest"],
        (made.instance_id, "optimize", "optimizer", "schema"),
    }
    assert _fingerprints(created) != _fingerprints(plain)


async def test_what_reads_columns_of_datasets_reads_an_optimizers_weights(
    service: RunningInstanceService, world: World
) -> None:
    made = await service.create(optimizer(world.project_id, "mvo", world.signal, world.prices))
    reads = {"refresh": {(made.instance_id, "optimize", "input", "data")}}
    config = {"expression": "ZSCORE(mvo.weight)"}
    tilted = derived(world.project_id, "tilted", made.instance_id)
    tilted["dataset"]["pipeline"]["config"] = config
    assert _edges(await service.create(tilted)) == reads
    tilted["dataset"]["pipeline"]["config"] = {"expression": "mvo.close"}
    refused = await refusal(service.create({**tilted, "name": "wrong"}))
    assert "weight" in str(refused)
    backtest = {
        "projectId": world.project_id,
        "name": "b",
        "backtest": {"signals": {"primary": made.instance_id}},
    }
    refused = await refusal(service.create(backtest))
    assert refused.reason == "WRONG_UPSTREAM_KIND"


@pytest.mark.parametrize(
    ("given", "reason", "fields"),
    [
        (
            {"config": {"features": [{"name": 7}], "target": {"horizon": 0}, "beta": 1}},
            "INVALID_CONFIG",
            {
                "instance.config.features[0].name",
                "instance.config.features[0].expression",
                "instance.config.target.expression",
                "instance.config.target.horizon",
                "instance.config.beta",
            },
        ),
        ({"definitionName": ""}, "INVALID_SPEC", {"instance"}),
        ({"definitionName": "nothing"}, "DEFINITION_NOT_FOUND", {"instance"}),
        ({"definitionName": "halves"}, "DEFINITION_NOT_FOUND", {"instance"}),
        ({"definitionVersion": "9.9.9"}, "DEFINITION_NOT_FOUND", {"instance"}),
        ({"definitionId": "rubbish"}, "DEFINITION_NOT_FOUND", {"instance"}),
        ({"upstreamRefs": []}, "INVALID_SPEC", {"instance.upstream_refs"}),
    ],
)
async def test_a_bad_model_is_refused_at_the_place(
    service: RunningInstanceService, world: World, given: dict[str, Any], reason: str, fields: set[str]
) -> None:
    before = await service.row_counts()
    refused = await refusal(service.create({**model(world.project_id, "m", world.prices), **given}))
    assert (refused.reason, set(refused.fields)) == (reason, fields)
    assert await service.row_counts() == before


async def test_a_bad_expression_in_a_model_is_refused_at_its_position(
    service: RunningInstanceService, world: World
) -> None:
    config = {**MODEL_CONFIG, "features": [{"name": "f", "expression": "ZSCORE(WOBBLE(close, 3))"}]}
    refused = await refusal(service.create(model(world.project_id, "m", world.prices, config=config)))
    assert (refused.code, refused.reason) == (INVALID, "INVALID_EXPRESSION")
    assert "position 7" in refused.fields["instance.config.features[0].expression"]


async def test_compatibility_rules_hold_on_creation_and_update(
    service: RunningInstanceService, world: World
) -> None:
    roles = [(world.signal, "features"), (world.signal, "target"), (world.prices, "nonsense")]
    refs = [{"resourceId": upstream, "role": role} for upstream, role in roles]
    bad = await refusal(service.create({**model(world.project_id, "m", world.prices), "upstreamRefs": refs}))
    assert bad.field_reasons == {
        "instance.upstream_refs[1]": "WRONG_UPSTREAM_KIND",
        "instance.upstream_refs[2]": "INVALID_SPEC",
    }
    made = await service.create(model(world.project_id, "m", world.prices))
    others = [await service.derived(world.project_id, f"d{n}", world.prices) for n in range(3)]
    many = [{"resourceId": other.instance_id, "role": "features"} for other in others]
    before = await service.row_counts()
    refused = await refusal(service.update(made.instance_id, {"upstreamRefs": many}, "upstream_refs"))
    assert "1 to 2" in refused.fields["instance.upstream_refs"]
    assert await service.row_counts() == before
    # A definition that says nothing about upstreams leaves it to the kind.
    wrong = await refusal(service.create(optimizer(world.project_id, "o", world.prices)))
    assert wrong.field_reasons == {"instance.upstream_refs[0]": "WRONG_UPSTREAM_KIND"}


async def test_constraints_are_checked_as_the_definition_has_them(
    service: RunningInstanceService, world: World
) -> None:
    given = optimizer(world.project_id, "o", world.signal)
    plain = await service.create(given)
    bad = {"portfolioOptimizer": {"constraints": {"max_weight": 2, "speed": 1}}}
    path = "instance.portfolio_optimizer.constraints"
    for call in (
        service.create({**given, **bad, "name": "bad"}),
        service.update(plain.instance_id, bad, "portfolio_optimizer.constraints"),
    ):
        refused = await refusal(call)
        assert refused.field_reasons == {
            f"{path}.max_weight": "INVALID_CONFIG",
            f"{path}.speed": "INVALID_CONFIG",
        }
    good = {"portfolioOptimizer": {"constraints": {"max_weight": 0.1}}}
    limited = await service.update(plain.instance_id, good, "portfolio_optimizer.constraints")
    assert _fingerprints(limited) != _fingerprints(plain)
    await publish(service, "halves", "2.0.0", parametersSchema={"type": "object"})
    none = await refusal(service.create({**given, **good, "name": "none"}))
    assert none.field_reasons == {f"{path}.max_weight": "INVALID_CONFIG"}


async def test_a_config_is_checked_against_the_pinned_version_on_update(
    service: RunningInstanceService, world: World
) -> None:
    made = await service.create(model(world.project_id, "m", world.prices))
    await publish(service, "linear", "2.0.0", parametersSchema={"type": "object", "maxProperties": 0})
    wider = {**MODEL_CONFIG, "alpha": 0.5}
    changed = await service.update(made.instance_id, {"config": wider}, "config")
    assert (changed.definition_version, changed.revision) == ("1.0.0", 2)
    assert all(now != then for now, then in zip(_fingerprints(changed), _fingerprints(made), strict=True))
    moved = await refusal(
        service.update(made.instance_id, {"definitionVersion": "2.0.0"}, "definition_version")
    )
    assert (moved.reason, set(moved.fields)) == ("INVALID_CONFIG", {"instance.config"})
    both = await service.update(
        made.instance_id, {"definitionVersion": "2.0.0", "config": {}}, "definition_version", "config"
    )
    assert (both.definition_version, both.definition_id) == ("2.0.0", made.definition_id)


async def test_ids_of_outside_systems_from_a_client_are_ignored(
    service: RunningInstanceService, world: World
) -> None:
    given = model(world.project_id, "m", world.prices)
    given["model"] = {"mlflowExperimentId": "7", "champion": {"modelVersion": "3"}}
    made = await service.create(given)
    assert (
        made.model.mlflow_experiment_id == service.experiments.stored[f"default.{made.instance_id}"][0] != "7"
    )
    assert not made.model.HasField("champion")
    refused = await refusal(service.update(made.instance_id, given, "model.mlflow_experiment_id"))
    assert refused.reason == "IMMUTABLE_FIELD"
    whole = await service.update(made.instance_id, {**given, "name": "n"}, "*")
    assert (whole.name, whole.model) == ("n", made.model)


async def test_swapping_a_component_makes_a_revision_and_keeps_the_others(
    service: RunningInstanceService, world: World
) -> None:
    made = await service.derived(world.project_id, "d", world.prices)
    pipeline = {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}}
    changed = await service.update(
        made.instance_id,
        {"dataset": {"pipeline": pipeline}, "upstreamRefs": []},
        "dataset.pipeline",
        "upstream_refs",
        reason="from the source",
    )
    assert (changed.instance_id, changed.revision) == (made.instance_id, 2)
    assert changed.dataset.pipeline.definition_name == "sp500_prices"
    for name in ("pipeline_instance_id", "store_instance_id", "accessor_instance_id"):
        assert getattr(changed.dataset, name) == getattr(made.dataset, name)
    assert changed.dataset.store == made.dataset.store
    component = await service.instances.GetInstance(
        GetInstanceRequest(instance_id=made.dataset.pipeline_instance_id)
    )
    assert (component.revision, component.definition_name) == (2, "sp500_prices")


async def test_a_change_without_effect_on_results_keeps_every_flow(
    service: RunningInstanceService, world: World
) -> None:
    made = await service.create(model(world.project_id, "m", world.prices))
    given = {
        "labels": {"a": "b"},
        "owner": "bob",
        "description": "x",
        "schedule": {"cron": {"expression": "0 3 * * *"}},
    }
    changed = await service.update(made.instance_id, given, *given)
    assert changed.revision == 2
    assert _fingerprints(changed) == _fingerprints(made)


async def test_a_definition_decides_which_flows_an_instance_has(
    service: RunningInstanceService, world: World
) -> None:
    fitting = [{"flowKind": "FLOW_KIND_TRAINING"}]
    await publish(service, "linear", "2.0.0", flowSpecs=fitting)
    fitted = await service.create(model(world.project_id, "fitted", world.prices))
    assert _edges(fitted) == {"training": {(world.prices, "refresh", "features", "feature")}}
    # Nobody can read what it does not yield, nor can a clock start it.
    reading = optimizer(world.project_id, "o", fitted.instance_id)
    await publish(
        service, "halves", "2.0.0", compatibilityRules=[{"role": "signal", "instanceKinds": ["model"]}]
    )
    refused = await refusal(service.create(reading))
    assert (refused.code, set(refused.fields)) == (INVALID, {"instance.upstream_refs[0]"})
    daily: dict[str, Any] = {"schedule": {"cron": {"expression": "0 6 * * *"}}}
    refused = await refusal(service.create(model(world.project_id, "daily", world.prices, **daily)))
    assert (refused.code, set(refused.fields)) == (INVALID, {"instance.schedule"})
    # What others may read does not go away.
    both = {"definitionVersion": "3.0.0"}
    await publish(service, "linear", "3.0.0", flowSpecs=[*fitting, {"flowKind": "FLOW_KIND_INFERENCE"}])
    full = await service.create(model(world.project_id, "full", world.prices, **both))
    assert set(_edges(full)) == {"training", "inference"}
    assert (
        await service.create(
            {**reading, "upstreamRefs": [{"resourceId": full.instance_id, "role": "signal"}]}
        )
    ).flows
    refused = await refusal(
        service.update(full.instance_id, {"definitionVersion": "2.0.0"}, "definition_version")
    )
    assert (refused.code, set(refused.fields)) == (INVALID, {"instance.definition_version"})
    monitored = await service.update(full.instance_id, {"definitionVersion": "1.0.0"}, "definition_version")
    assert set(_edges(monitored)) == {"training", "inference", "monitoring"}
    back = await service.update(full.instance_id, both, "definition_version")
    assert set(_edges(back)) == {"training", "inference"}
    await service.until(
        full.instance_id,
        lambda _: (
            {
                flow
                for *_, instance, flow in (name.split(".") for name in service.deployments.stored)
                if instance == full.instance_id
            }
            == {"training", "inference"}
        ),
    )


async def test_a_pipeline_does_not_decide_that_datasets_are_monitored(
    service: RunningInstanceService,
) -> None:
    watching = [{"flowKind": "FLOW_KIND_REFRESH"}, {"flowKind": "FLOW_KIND_MONITORING", "isDefault": True}]
    refused = await refusal(publish(service, "halves", kind="DEFINITION_KIND_PIPELINE", flowSpecs=watching))
    assert (refused.code, set(refused.fields)) == (INVALID, {"definition_version.flow_specs[1].is_default"})


async def test_a_publication_checks_tracking_instances_by_the_rules_of_moving_them(
    service: RunningInstanceService, world: World
) -> None:
    follower = await service.create(model(world.project_id, "m", world.prices, trackNewest=True))
    limited = optimizer(world.project_id, "o", world.signal, trackNewest=True)
    limited["portfolioOptimizer"] = {"constraints": {"max_weight": 0.8}}
    await service.create(limited)
    five = [{"role": "features", "minCount": 5}]
    training = [{"flowKind": "FLOW_KIND_TRAINING"}]
    broken = await publish(service, "linear", "2.0.0", compatibilityRules=five, flowSpecs=training)
    report = broken.publication_report
    assert report.compatibility == COMPATIBILITY_BREAKING
    assert {(change.path, change.compatibility) for change in report.schema_changes} == {
        ("/compatibility_rules/features/instance_kinds", COMPATIBILITY_COMPATIBLE),
        ("/compatibility_rules/features/min_count", COMPATIBILITY_BREAKING),
        ("/compatibility_rules/features/max_count", COMPATIBILITY_COMPATIBLE),
        ("/compatibility_rules/target", COMPATIBILITY_BREAKING),
        ("/flow_specs/inference", COMPATIBILITY_BREAKING),
        ("/flow_specs/monitoring", COMPATIBILITY_BREAKING),
    }
    (tracking,) = report.tracking_instances
    # What the condition of the follower then says is what was foretold.
    stuck = await service.until(follower.instance_id, lambda found: found.conditions)
    assert (stuck.definition_version, stuck.conditions[0].type) == ("1.0.0", "FollowsNewest")
    assert stuck.conditions[0].message == "; ".join(tracking.violations)
    assert [text.partition(":")[0] for text in tracking.violations] == [
        "instance.upstream_refs",
        "instance.definition_version",
    ]
    schema = {
        **MANIFESTS["halves"]["parametersSchema"],
        "$defs": {"constraints": {"properties": {"max_weight": {"maximum": 0.5}}}},
    }
    draft = await publish(service, "halves", "2.0.0", parametersSchema=schema, draft=True)
    report = draft.publication_report
    assert ("/parameters_schema/$defs/constraints/properties/max_weight/maximum", COMPATIBILITY_BREAKING) in {
        (change.path, change.compatibility) for change in report.schema_changes
    }
    assert [text.partition(":")[0] for text in report.tracking_instances[0].violations] == [
        "instance.portfolio_optimizer.constraints.max_weight"
    ]
