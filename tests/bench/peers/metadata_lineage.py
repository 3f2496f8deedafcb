"""A program in ML Metadata's environment: print the seconds that the lineage of many executions takes, as JSON.

One artifact is the input of all executions, and each has an output.
"""

from __future__ import annotations

import json
import sys
import time

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

_ROUNDS = 5
_PART = 500  # executions that are stored at once


def main(count: int) -> None:
    """Measure a query for all that is below the artifact."""
    config = mlmd.ConnectionConfig()
    config.sqlite.SetInParent()  # in memory
    store = metadata_store.MetadataStore(config)
    data = store.put_artifact_type(mlmd.ArtifactType(name="data"))
    step = store.put_execution_type(mlmd.ExecutionType(name="step"))
    (root,) = store.put_artifacts([mlmd.Artifact(type_id=data, uri="root")])
    for first in range(0, count, _PART):
        numbers = range(first, min(first + _PART, count))
        outputs = store.put_artifacts([mlmd.Artifact(type_id=data, uri=f"{number}") for number in numbers])
        executions = store.put_executions([mlmd.Execution(type_id=step) for _ in numbers])
        events = [
            mlmd.Event(artifact_id=artifact, execution_id=execution, type=kind)
            for output, execution in zip(outputs, executions, strict=True)
            for artifact, kind in ((root, mlmd.Event.INPUT), (output, mlmd.Event.OUTPUT))
        ]
        store.put_events(events)
    options = mlmd.LineageSubgraphQueryOptions(max_num_hops=2)
    options.starting_artifacts.filter_query = f"id = {root}"
    options.direction = mlmd.LineageSubgraphQueryOptions.DOWNSTREAM

    def read() -> float:
        began = time.perf_counter()
        graph = store.get_lineage_subgraph(options)
        elapsed = time.perf_counter() - began
        assert len(graph.executions) == count
        assert len(graph.artifacts) == count + 1
        return elapsed

    seconds = min(read() for _ in range(_ROUNDS))
    print(json.dumps({"seconds": seconds}))  # noqa: T201 - the answer to the program that started it


if __name__ == "__main__":
    main(int(sys.argv[1]))
