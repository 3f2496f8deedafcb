"""Read the recipe of a monitoring."""

from __future__ import annotations

from collections.abc import Sequence

from optaic.instance.v1 import instance_pb2
from optaic.plugins import MissingInput, PluginError
from optaic.rules.monitoring import read_settings
from optaic.rules.roles import MONITORED
from optaic.rules.run_parameters import DATA_DATE
from optaic.run.v1 import run_pb2
from worker.builtin.parameters import read_date
from worker.recipe import Input, MonitoringRecipe
from worker.recipe_reading.components import find_dataset, read_struct


def make_monitoring(
    run: run_pb2.Run, instance: instance_pb2.Instance, inputs: Sequence[Input]
) -> MonitoringRecipe:
    """Return what a monitoring compares.

    Raises:
        MissingInput: the run reads no version of what is monitored.
    """
    watched = [given for given in inputs if given.role == MONITORED]
    if len(watched) != 1:
        raise MissingInput(
            f"the run reads no version of what {instance.name} monitors; submit a new run, which reads the present one"
        )
    dataset = find_dataset(instance)
    if dataset is None:
        raise PluginError("the monitoring of models is not there yet", type="UnsupportedFlow")
    return MonitoringRecipe(
        watched[0],
        tuple(given for given in inputs if given.role != MONITORED),
        read_settings(dataset.monitoring),
        read_date(read_struct(run.parameters), DATA_DATE),
    )
