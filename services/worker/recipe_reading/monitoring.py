"""Read the recipe of a monitoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from optaic.instance.v1 import instance_pb2
from optaic.plugins import MissingInput
from optaic.rules.monitoring import read_settings
from optaic.rules.roles import MONITORED, TARGET
from optaic.rules.run_parameters import DATA_DATE
from optaic.run.v1 import run_pb2
from worker.builtin.parameters import read_date
from worker.recipe import Input, MonitoredModel, MonitoringRecipe
from worker.recipe_reading.components import Versions, find_dataset, read_struct
from worker.recipe_reading.inference import configure
from worker.trainings import Trainings, trained_files


def make_monitoring(
    run: run_pb2.Run,
    instance: instance_pb2.Instance,
    inputs: Sequence[Input],
    versions: Versions,
    trainings: Trainings | None,
) -> MonitoringRecipe:
    """Return what a monitoring compares.

    Raises:
        MissingInput: the run reads no version of what is monitored, or of a feature.
    """
    watched = [given for given in inputs if given.role == MONITORED]
    if len(watched) != 1:
        raise MissingInput(
            f"the run reads no version of what {instance.name} monitors; submit a new run, which reads the present one"
        )
    dataset = find_dataset(instance)
    return MonitoringRecipe(
        watched[0],
        read_settings(instance.model.monitoring if dataset is None else dataset.monitoring),
        read_date(read_struct(run.parameters), DATA_DATE),
        run.instance_revision,
        _read_model(instance, inputs, versions, trainings) if dataset is None else None,
    )


def _read_model(
    instance: instance_pb2.Instance,
    inputs: Sequence[Input],
    versions: Versions,
    trainings: Trainings | None,
) -> MonitoredModel:
    """Return the model as its training was configured; where no training is known, as it is configured now."""
    training = trainings.chosen[-1] if trainings is not None and trainings.chosen else None
    trained = instance
    if trainings is not None and training is not None:
        trained = trainings.instances[training.instance_revision]
    named = {ref.resource_id: ref.name for ref in trained.upstream_refs if ref.role == TARGET}
    return MonitoredModel(
        configure(trained, inputs, versions),
        tuple(
            replace(given, name=named.get(given.instance_id) or given.name)
            for given in inputs
            if given.role == TARGET
        ),
        None if training is None else trained_files(training),
    )
