"""Read the recipe of an inference: which trained versions predict, each as it was configured when it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from optaic.instance.v1 import instance_pb2
from optaic.plugins import MissingInput, Mode
from optaic.rules.roles import FEATURES
from optaic.rules.run_parameters import DATA_DATE
from optaic.run.v1 import run_pb2
from worker.builtin.parameters import read_date
from worker.recipe import InferenceRecipe, Input, ModelConfiguration, TrainedModel
from worker.recipe_reading.components import (
    Versions,
    read_component,
    read_guardrails,
    read_macros,
    read_operators,
    read_struct,
)
from worker.recipe_reading.outputs import form_of
from worker.trainings import Trainings, trained_files


def make_inference(
    run: run_pb2.Run,
    instance: instance_pb2.Instance,
    inputs: Sequence[Input],
    versions: Versions,
    trainings: Trainings | None,
) -> InferenceRecipe:
    """Return what an inference computes.

    Raises:
        MissingInput: there is no trained version, or the one that is read was trained on an instance that is no longer among
            the upstreams.
    """
    if trainings is None:
        raise MissingInput(f"{instance.name} has no trained version to read; run its flow training first")
    configurations: dict[int, ModelConfiguration] = {}
    problems: dict[int, str] = {}
    for revision, trained in trainings.instances.items():
        try:
            configurations[revision] = configure(trained, inputs, versions)
        except MissingInput as error:
            problems[revision] = str(error)
    read = trainings.chosen[-1]
    if read.instance_revision in problems:
        raise MissingInput(problems[read.instance_revision])
    base, form = run.base_version, form_of(instance, versions)
    return InferenceRecipe(
        models=tuple(
            TrainedModel(each.run_id, trained_files(each), configurations[each.instance_revision])
            for each in trainings.chosen
            if each.instance_revision in configurations
        ),
        left_out={
            each.run_id: problems[each.instance_revision]
            for each in trainings.chosen
            if each.instance_revision in problems
        },
        artifact_version=trainings.artifact_version,
        revision=run.instance_revision,
        mode=Mode.FULL if run.mode == run_pb2.RUN_MODE_FULL else Mode.INCREMENTAL,
        data_date=read_date(read_struct(run.parameters), DATA_DATE),
        base=form.at(base.uri, base.physical_version, base.digest)
        if base.physical_version and form
        else None,
        guardrails=read_guardrails(
            versions[instance.definition_version_id],
            read_component(versions[instance.definition_version_id], instance.config).config,
        ),
        warnings=trainings.warnings,
    )


def configure(
    trained: instance_pb2.Instance, inputs: Sequence[Input], versions: Versions
) -> ModelConfiguration:
    """Return how features are built at a revision, from the versions that the run is pinned to."""
    pinned: Mapping[str, Input] = {each.instance_id: each for each in inputs if each.role == FEATURES}
    wanted = [ref for ref in trained.upstream_refs if ref.role == FEATURES]
    if missing := [ref.name or ref.resource_id for ref in wanted if ref.resource_id not in pinned]:
        raise MissingInput(
            f"upstream_refs: the training of revision {trained.revision} read {', '.join(missing)}, which the model no longer "
            "reads; name it again, or train the model anew"
        )
    called = {name: versions[version_id] for name, version_id in trained.macro_version_ids.items()}
    return ModelConfiguration(
        revision=trained.revision,
        module=read_component(versions[trained.definition_version_id], trained.config),
        inputs=tuple(
            replace(pinned[ref.resource_id], name=ref.name or pinned[ref.resource_id].name) for ref in wanted
        ),
        macros=read_macros(called),
        operators=read_operators(called),
    )
