"""Convert the answers about admission to protobuf messages; decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lineage_service.conversion import cause_message, flow_ref, status_of, version_message
from lineage_service.domain.causes import Cause
from lineage_service.domain.flows import Flow
from lineage_service.domain.increments import InputChange
from optaic.common.v1.flow_pb2 import FlowKind, InputVersion, LateInput
from optaic.lineage.v1 import lineage_pb2, lineage_service_pb2
from servicekit.enums import enum_number


def admission_message(
    revision: int,
    own: Flow,
    direct: Sequence[tuple[Flow, Sequence[InputChange]]],
    late: Sequence[Flow],
    full_because: str,
) -> lineage_service_pb2.CheckUpstreamFreshnessResponse:
    """Return what a run of a flow would read; `direct` are its upstreams with what has changed in each role.

    `late` are the upstreams whose data is late, and that do not block.
    """
    allows_incremental = bool(direct) and not full_because
    return lineage_service_pb2.CheckUpstreamFreshnessResponse(
        input_versions=[
            InputVersion(
                role=change.role,
                instance_id=flow.instance_id,
                flow_kind=enum_number(FlowKind, flow.flow_kind),
                version=flow.version,
                version_id=flow.version_id,
                digest=flow.digest,
                uri=flow.uri,
                physical_version=flow.physical_version,
                instance_name=flow.instance_name,
                # Old versions have no recorded revision: use the current one.
                instance_revision=flow.computed_revision or flow.instance_revision,
                readers_hash=flow.readers_hash,
                change_start=change.start if allows_incremental else "",
                change_end=change.end if allows_incremental else "",
            )
            for flow, changes in direct
            for change in changes
        ],
        base_version=version_message(own) if own.version else None,
        lineage_revision=revision,
        known_runs=[
            lineage_service_pb2.KnownRun(flow=flow_ref(*flow.key), run_number=flow.run_number)
            for flow in {flow.key: flow for flow in (own, *(flow for flow, _ in direct), *late)}.values()
        ],
        instance_revision=own.instance_revision,
        late_inputs=[
            LateInput(
                flow=flow_ref(*flow.key),
                instance_name=flow.instance_name,
                expected_data_date=flow.expected_data_date,
                last_data_date=flow.last_data_date,
            )
            for flow in late
        ],
        allows_incremental=allows_incremental,
        full_because=full_because if direct else "",
    )


def blocking_message(
    flow: Flow, reason: str, causes: Iterable[Cause], unread_run_ids: Iterable[str]
) -> lineage_pb2.BlockingFlow:
    """Convert an upstream that blocks to a protobuf message."""
    return lineage_pb2.BlockingFlow(
        flow=flow_ref(*flow.key),
        instance_name=flow.instance_name,
        status=status_of(flow),
        reason=reason,
        causes=[cause_message(cause) for cause in causes],
        is_missing_input=flow.version == 0,
        run_number=flow.run_number,
        unread_run_ids=unread_run_ids,
    )
