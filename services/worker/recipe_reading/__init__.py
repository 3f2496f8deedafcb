"""Build the recipe of a run from protobuf messages; calls no service and no plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.plugins import PluginError
from optaic.rules.kinds import DEFINED_KINDS, FLOWS
from optaic.run.v1 import run_pb2
from servicekit.enums import enum_word
from worker.recipe import Recipe
from worker.recipe_reading.backtest import make_backtest
from worker.recipe_reading.components import (
    Versions,
    find_dataset,
    read_component,
    read_optimizer,
    to_mapping,
)
from worker.recipe_reading.inference import make_inference
from worker.recipe_reading.inputs import is_read_by_settings, read_inputs
from worker.recipe_reading.monitoring import make_monitoring
from worker.recipe_reading.optimization import make_optimization
from worker.recipe_reading.preview import make_preview
from worker.recipe_reading.refresh import make_refresh
from worker.recipe_reading.training import make_training
from worker.trainings import Trainings

__all__ = ["Versions", "find_dataset", "list_version_ids", "make_recipe", "read_component", "to_mapping"]


def list_version_ids(instances: Sequence[instance_pb2.Instance]) -> list[str]:
    """Return the definition versions that these instances' components, and what they call, are pinned to, each once.

    Raises:
        PluginError: `ComponentUnpinned`, when a component names no version.
    """
    found: dict[str, None] = {}
    for instance in instances:
        for name, version_id, called in _list_pins(instance):
            if not version_id:
                raise PluginError(
                    f"{instance.name}: component {name or '?'} is pinned to no version of its "
                    "definition; update the instance, which pins it",
                    type="ComponentUnpinned",
                )
            found[version_id] = None
            found.update(dict.fromkeys(sorted(called.values())))
    return list(found)


def _list_pins(instance: instance_pb2.Instance) -> list[tuple[str, str, Mapping[str, str]]]:
    """Return the name, the pinned version and the called versions of each definition that an instance uses."""
    if (dataset := find_dataset(instance)) is not None:
        components = (dataset.pipeline, dataset.store, dataset.accessor)
        return [
            (each.definition_name, each.definition_version_id, each.macro_version_ids) for each in components
        ]
    if instance.WhichOneof("spec") in DEFINED_KINDS:
        return [(instance.definition_name, instance.definition_version_id, instance.macro_version_ids)]
    return []


def make_recipe(
    run: run_pb2.Run,
    instance: instance_pb2.Instance,
    upstreams: Sequence[instance_pb2.Instance],
    versions: Versions,
    base_instance: instance_pb2.Instance | None = None,
    trainings: Trainings | None = None,
) -> Recipe:
    """Return what `run` computes.

    Args:
        run: with its pins.
        instance: at the run's revision.
        upstreams: each at the revision that is pinned.
        versions: what all of them are pinned to.
        base_instance: at the revision at which the base version was made, where that is another one.
        trainings: of an inference or a monitoring, which read them.

    Raises:
        PluginError: by type; `UnsupportedFlow` when the flow is not one that this worker executes.
    """
    named = {(ref.role, ref.resource_id): ref.name for ref in instance.upstream_refs}
    inputs = read_inputs(run, named, {upstream.instance_id: upstream for upstream in upstreams}, versions)
    flow = enum_word(flow_pb2.FlowKind, run.flow_kind)
    if flow not in FLOWS.get(instance.WhichOneof("spec") or "", ()):
        raise PluginError(
            f"this worker cannot execute the flow {flow} of {instance.name}; upgrade the worker to the release of the "
            "services, or submit another flow",
            type="UnsupportedFlow",
        )
    recipe: Recipe
    match flow:
        case "backtest":
            optimizers = [
                upstream
                for pinned in run.input_versions
                for upstream in upstreams
                if is_read_by_settings(run, pinned) and upstream.instance_id == pinned.instance_id
            ]
            optimizer = read_optimizer(optimizers[0], versions) if optimizers else None
            recipe = make_backtest(instance, inputs, optimizer)
        case "optimize":
            recipe = make_optimization(run, instance, inputs, versions)
        case "preview":
            recipe = make_preview(run, instance, inputs, versions)
        case "monitoring":
            recipe = make_monitoring(run, instance, inputs, versions, trainings)
        case "training":
            recipe = make_training(run, instance, inputs, versions)
        case "inference":
            recipe = make_inference(run, instance, inputs, versions, trainings)
        case _:
            recipe = make_refresh(run, instance, inputs, versions, base_instance)
    return recipe
