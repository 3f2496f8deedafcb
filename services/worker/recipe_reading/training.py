"""Read the recipe of a training."""

from __future__ import annotations

from optaic.instance.v1 import instance_pb2
from optaic.plugins import MissingInput
from optaic.rules.roles import FEATURES
from optaic.rules.run_parameters import DATA_DATE
from optaic.run.v1 import run_pb2
from worker.builtin.parameters import read_date
from worker.recipe import Input, TrainingRecipe
from worker.recipe_reading.components import (
    Versions,
    read_component,
    read_macros,
    read_operators,
    read_struct,
)


def make_training(
    run: run_pb2.Run, instance: instance_pb2.Instance, inputs: tuple[Input, ...], versions: Versions
) -> TrainingRecipe:
    """Return what the training of a model computes.

    Raises:
        MissingInput: the run reads nothing of the role `features`.
    """
    if not any(given.role == FEATURES for given in inputs):
        raise MissingInput(
            f"upstream_refs: {instance.name} needs an upstream of the role {FEATURES}; add one to the instance"
        )
    called = {name: versions[version_id] for name, version_id in instance.macro_version_ids.items()}
    return TrainingRecipe(
        module=read_component(versions[instance.definition_version_id], instance.config),
        inputs=inputs,
        macros=read_macros(called),
        operators=read_operators(called),
        data_date=read_date(read_struct(run.parameters), DATA_DATE),
        instance_revision=run.instance_revision,
    )
