"""The runs of ours that an answer of lineage-service does not know, because their events have not arrived there."""

from __future__ import annotations

from collections.abc import Iterable

from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_service_pb2
from run_service.domain.statuses import ENDED, RunStatus
from run_service.store.runs import NewestRun
from servicekit.enums import enum_number

FlowKey = tuple[str, flow_pb2.FlowKind.ValueType]
Answer = lineage_service_pb2.CheckUpstreamFreshnessResponse


def key_of(flow: flow_pb2.FlowRef) -> FlowKey:
    """Return the key of a flow."""
    return (flow.instance_id, flow.flow_kind)


def key_of_run(run: NewestRun) -> FlowKey:
    """Return the key of the flow of a run."""
    return (run.instance_id, enum_number(flow_pb2.FlowKind, run.flow_kind))


def known_numbers(answer: Answer) -> dict[FlowKey, int]:
    """Return the newest run of each flow on which an answer rests."""
    known = {key_of(item.flow): item.run_number for item in answer.known_runs}
    known.update({key_of(item.flow): item.run_number for item in answer.blocking})
    return known


def find_unknown(
    answer: Answer,
    known: dict[FlowKey, int],
    own: FlowKey,
    ours: Iterable[NewestRun],
    fingerprint: str,
) -> set[str]:
    """Return our runs that the answer does not know, because they are newer, have ended, or have another output."""
    running = {key_of(item.flow) for item in answer.blocking if item.status == flow_pb2.STATUS_RUNNING}
    base = answer.base_version
    outputs = {
        (item.instance_id, item.flow_kind): (item.version_id, item.digest, item.readers_hash)
        for item in answer.input_versions
    }
    outputs[own] = (base.version_id, base.digest, base.readers_hash)
    unknown = set()
    for run in ours:
        key = key_of_run(run)
        is_newer = run.run_number > known.get(key, 0)
        has_ended_meanwhile = key in running and run.status in ENDED
        # Another configuration than the answer names may have computed equal content.
        is_recomputed = (
            key == own
            and run.status is RunStatus.COMPLETED
            and not run.is_partial_range  # which leaves the fingerprint as it is
            and base.compute_fingerprint not in {"", fingerprint, run.compute_fingerprint}
        )
        if is_newer or has_ended_meanwhile or is_recomputed or _has_other_output(run, outputs.get(key)):
            unknown.add(run.run_id)
    return unknown


def _has_other_output(run: NewestRun, output: tuple[str, str, str] | None) -> bool:
    if output is None or run.status is not RunStatus.COMPLETED:
        return False
    version_id, digest, readers_hash = output
    # An equal digest with equal readers keeps the version, and with it the id of an older run.
    is_same = run.run_id == version_id or (digest != "" and digest in {run.digest, run.former_digest})
    return not is_same or readers_hash != run.readers_hash
