"""Say how the output of an instance is read: by the parts of its dataset, or by the built-in ones that keep what flows give."""

from __future__ import annotations

from dataclasses import dataclass

from optaic.instance.v1 import instance_pb2
from optaic.rules.columns import VALUE, WEIGHT, value_column
from optaic.rules.kept_outputs import KEPT_BY, READ_BY
from optaic.rules.kinds import TIMEZONE
from worker.recipe import Component, StoredData
from worker.recipe_reading.components import Versions, find_dataset, read_components

# The worker's own code, which no definition has: what the flows of these kinds give lies in a dataset that they alone write.
_KEPT_BY, _READ_BY = Component(KEPT_BY, {}), Component(READ_BY, {})
# The column of values of what a kind gives.
_VALUES = {"experiment": VALUE, "portfolio_optimizer": WEIGHT, "model": VALUE}


@dataclass(frozen=True)
class OutputForm:
    """The form of an output: how it is read, and which column has its values."""

    store: Component
    accessor: Component
    timezone: str = TIMEZONE
    value_column: str = VALUE

    def at(self, uri: str, physical_version: str, digest: str = "") -> StoredData:
        """Return one version of the output."""
        return StoredData(self.store, self.accessor, uri, physical_version, self.timezone, digest)


def form_of(instance: instance_pb2.Instance, versions: Versions) -> OutputForm | None:
    """Return the form of an instance's output; None if it has none that can be read as a dataset."""
    if (dataset := find_dataset(instance)) is not None:
        pipeline, store, accessor = read_components(dataset, versions)
        return OutputForm(
            store, accessor, dataset.timezone or TIMEZONE, value_column(pipeline.config.get("output"))
        )
    kind = instance.WhichOneof("spec")
    return OutputForm(_KEPT_BY, _READ_BY, value_column=_VALUES[kind]) if kind in _VALUES else None
