"""Read the inputs of a run: which version of each upstream it reads, and how."""

from __future__ import annotations

from collections.abc import Mapping

from optaic.instance.v1 import instance_pb2
from optaic.plugins import MissingInput
from optaic.rules.columns import value_column
from optaic.rules.kinds import TIMEZONE
from optaic.run.v1 import run_pb2
from worker.recipe import Input, StoredData
from worker.recipe_reading.components import Versions, find_dataset, read_components


def read_inputs(
    run: run_pb2.Run,
    named: Mapping[tuple[str, str], str],
    upstreams: Mapping[str, instance_pb2.Instance],
    versions: Versions,
) -> tuple[Input, ...]:
    """Return the inputs of a run in the order of its pins.

    Raises:
        MissingInput: an upstream has no output, or none that can be read.
    """
    inputs = []
    for pinned in run.input_versions:
        upstream = upstreams[pinned.instance_id]
        # As the reader's expressions name it, whatever it was called when it was computed.
        name = named.get((pinned.role, pinned.instance_id), "") or pinned.instance_name or upstream.name
        dataset = find_dataset(upstream)
        if not pinned.physical_version:
            raise MissingInput(f"upstream {name} ({pinned.role}) has no output to read; run it first")
        if dataset is None:
            raise MissingInput(
                f"upstream {name} ({pinned.role}) is neither a dataset nor a signal; name one in upstream_refs"
            )
        pipeline, store, accessor = read_components(dataset, versions)
        data = StoredData(store, accessor, pinned.uri, pinned.physical_version, dataset.timezone or TIMEZONE)
        inputs.append(
            Input(
                pinned.role,
                name,
                pinned.instance_id,
                pinned.version,
                pinned.digest,
                data,
                value_column(pipeline.config.get("output")),
            )
        )
    return tuple(inputs)
