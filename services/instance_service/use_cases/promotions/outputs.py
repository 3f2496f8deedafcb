"""Record what run-service reports about the newest outputs of datasets and signals; no data is read."""

from __future__ import annotations

from collections.abc import Iterable

from instance_service.store import outputs
from instance_service.store.outputs import Output
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH, FlowKind
from optaic.run.v1.run_pb2 import Run
from servicekit.database import Connection
from servicekit.enums import enum_word


async def record_outputs(connection: Connection, tenant_id: str, completed: Iterable[Run]) -> None:
    """Record for each flow the output of its newest completed run, whatever the order of the events."""
    newest: dict[str, Run] = {}
    for run in completed:
        known = newest.get(run.instance_id)
        if run.flow_kind == FLOW_KIND_REFRESH and (known is None or run.run_number > known.run_number):
            newest[run.instance_id] = run
    if newest:
        await outputs.put_outputs(connection, tenant_id, [_output(run) for run in newest.values()])


def _output(run: Run) -> Output:
    has_profile = run.pipeline.HasField("output_profile")
    profile = run.pipeline.output_profile.SerializeToString() if has_profile else None
    return Output(
        run.instance_id, enum_word(FlowKind, run.flow_kind), run.run_number, run.compute_fingerprint, profile
    )
