"""Convert between protobuf messages and the domain, in both directions; decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC
from functools import lru_cache

from google.protobuf.message import Message

from lineage_service.domain.causes import TIME_CAUSES, Cause, CauseKind
from lineage_service.domain.errors import not_a_flow_kind, not_a_uuid, run_without_number
from lineage_service.domain.flows import Edge, Flow
from lineage_service.domain.freshness import Frequency, Policy, is_late
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.probes import ProbeFact
from lineage_service.domain.runs import NO_FAILURE, Input, Phase, RunFact, failure_of
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.domain.statuses import Outcome, activity_of, word_of
from optaic.common.v1.flow_pb2 import FlowKind, FlowRef, Status, VersionRef
from optaic.instance.v1 import instance_events_pb2
from optaic.instance.v1.instance_pb2 import FreshnessPolicy, Instance, InstanceKind
from optaic.lineage.v1 import lineage_pb2, lineage_service_pb2
from optaic.rules.kinds import OUTPUT_FLOWS
from optaic.run.v1 import run_events_pb2
from servicekit.enums import enum_number, enum_word
from servicekit.ids import is_id
from servicekit.times import set_time

_PHASES: dict[type[Message], Phase] = {
    run_events_pb2.RunSubmitted: Phase.ACTIVE,
    run_events_pb2.RunStarted: Phase.ACTIVE,
    run_events_pb2.RunCompleted: Phase.COMPLETED,
    run_events_pb2.RunFailed: Phase.FAILED,
    run_events_pb2.RunCancelled: Phase.CANCELLED,
}
_SNAPSHOTS: dict[type[Message], bool] = {  # true: the event deletes the instance
    instance_events_pb2.InstanceCreated: False,
    instance_events_pb2.InstanceUpdated: False,
    instance_events_pb2.InstanceActivated: False,
    instance_events_pb2.InstanceDeletionRequested: True,
    instance_events_pb2.InstanceDeleted: True,
}


@lru_cache
def kind_name(number: int) -> str:
    """Return the stored name of a flow kind, like `refresh`.

    Raises:
        InvalidArgumentError: INVALID_EVENT: no flow kind has this number.
    """
    if number == FlowKind.FLOW_KIND_UNSPECIFIED or number not in FlowKind.values():
        raise not_a_flow_kind(number)
    return enum_word(FlowKind, number)


def flow_key(ref: FlowRef) -> FlowKey:
    """Return the domain key of a flow reference.

    Raises:
        InvalidArgumentError: INVALID_EVENT: the instance id is not a UUID, or the flow kind is unknown.
    """
    return FlowKey(_id(ref.instance_id), kind_name(ref.flow_kind))


def _id(text: str) -> str:
    if not is_id(text):
        raise not_a_uuid(text)
    return text


def snapshot_of(instance: Instance, *, is_deleted: bool = False, event_id: str = "") -> Snapshot:
    """Convert an instance into the snapshot that lineage stores."""
    policy = _policy_of(instance.freshness_policy) if instance.HasField("freshness_policy") else None
    judged = OUTPUT_FLOWS.get(enum_word(InstanceKind, instance.kind))
    flows = tuple(
        FlowSpec(
            kind_name(flow.flow_kind),
            flow.compute_fingerprint,
            tuple(EdgeSpec(flow_key(edge.upstream), edge.role, edge.kind) for edge in flow.upstreams),
            flow.fingerprint_change,
            flow.verified_output.run_number,
            flow.verified_output.compute_fingerprint,
            policy if kind_name(flow.flow_kind) == judged else None,
        )
        for flow in instance.flows
    )
    return Snapshot(
        _id(instance.instance_id),
        instance.revision,
        instance.name,
        instance.kind,
        flows,
        is_deleted,
        event_id,
    )


def _policy_of(message: FreshnessPolicy) -> Policy | None:
    """Convert a freshness policy; one that is never overdue is none."""
    frequency = enum_word(FreshnessPolicy.Frequency, message.frequency)
    if frequency not in set(Frequency):
        return None
    return Policy(
        Frequency(frequency),
        message.exchange_calendar,
        message.grace.ToTimedelta(),
        message.due_time,
        message.timezone,
        message.due_lag,
        message.blocks_readers,
    )


def snapshot_of_event(message: Message, event_id: str) -> Snapshot | None:
    """Return the snapshot that an instance event carries; None for other events."""
    is_deleted = _SNAPSHOTS.get(type(message))
    if is_deleted is None:
        return None
    return snapshot_of(message.instance, is_deleted=is_deleted, event_id=event_id)  # type: ignore[attr-defined]  # each event has one


def run_fact_of_event(message: Message, event_id: str) -> RunFact | None:
    """Return the fact that a run event states; None for an event that lineage does not use."""
    phase = _PHASES.get(type(message))
    if phase is None:
        return None
    run = message.run  # type: ignore[attr-defined]  # each event has one
    # A refused run has the number 0: it is outside the sequence of runs and changes nothing.
    if run.run_number < (0 if phase is Phase.CANCELLED else 1):
        raise run_without_number(run.run_id)
    fact = RunFact(
        FlowKey(_id(run.instance_id), kind_name(run.flow_kind)),
        _id(run.run_id),
        run.run_number,
        phase,
        run.submit_time.ToDatetime(UTC) if run.HasField("submit_time") else None,
        event_id=event_id,
        failure=failure_of(run.error.type, run.error.message) if phase is Phase.FAILED else NO_FAILURE,
    )
    if phase is not Phase.COMPLETED:
        return fact
    output = run.output_version
    return RunFact(
        fact.flow,
        fact.run_id,
        fact.run_number,
        phase,
        fact.submit_time,
        fingerprint=run.compute_fingerprint,
        inputs=tuple(
            Input(
                FlowKey(_id(item.instance_id), kind_name(item.flow_kind)),
                item.role,
                item.version_id and _id(item.version_id),
            )
            for item in run.input_versions
        ),
        uri=output.uri,
        physical_version=output.physical_version,
        digest=output.digest,
        last_data_date=output.last_data_date,
        rows_processed=run.pipeline.rows_fetched,
        event_id=event_id,
        is_partial_range=run.is_partial_range and not run.covers_changes,
        instance_revision=run.instance_revision,
        readers_hash=output.readers_hash,
        base_readers_hash=output.base_readers_hash,
        source_token=output.source_token,
        base_run_id=run.base_version.version_id and _id(run.base_version.version_id),
        change_start=output.change_start,
        change_end=output.change_end,
        former_digest=output.former_digest,
    )


def probe_fact_of_event(message: Message, event_id: str) -> ProbeFact | None:
    """Return the fact that a probe of a source states; None for other events."""
    if not isinstance(message, instance_events_pb2.SourceProbed):
        return None
    key = flow_key(message.flow)
    return ProbeFact(key, message.run_number, message.source_token, message.probe_number, event_id)


def flow_ref(instance_id: str, flow_kind: str) -> FlowRef:
    """Return the protobuf reference to a flow."""
    return FlowRef(instance_id=instance_id, flow_kind=enum_number(FlowKind, flow_kind))


def cause_message(cause: Cause) -> lineage_pb2.Cause:
    """Convert a cause to a protobuf message."""
    return set_cause(lineage_pb2.Cause(), cause)


def set_cause(message: lineage_pb2.Cause, cause: Cause) -> lineage_pb2.Cause:
    """Write a cause into an empty protobuf message, and return the message."""
    # Skip fields that hold their default: a propagation can write a hundred thousand causes.
    origin = cause.origin
    message.kind = cause.kind  # type: ignore[assignment]  # the domain uses the same numbers; a test compares them
    message.origin.instance_id = origin.instance_id
    message.origin.flow_kind = enum_number(FlowKind, origin.flow_kind)
    message.message = cause.message
    if origin.instance_name:
        message.origin_name = origin.instance_name
    if cause.to_version:
        message.from_version = cause.from_version
        message.to_version = cause.to_version
    if cause.upstream is not None:
        message.upstream.instance_id = cause.upstream.instance_id
        message.upstream.flow_kind = enum_number(FlowKind, cause.upstream.flow_kind)
    if cause.kind is CauseKind.SOURCE_CHANGED and isinstance(origin, Flow):
        message.from_token, message.to_token = origin.source_token, origin.probed_token
    if cause.kind in TIME_CAUSES and isinstance(origin, Flow):
        message.expected_data_date = origin.expected_data_date
        message.last_data_date = origin.last_data_date
        if origin.late_since_time is not None:
            set_time(message.late_since_time, origin.late_since_time)
    return message


@lru_cache
def dimensions(
    run_number_is_ended: bool, outcome: str, is_fresh: bool
) -> tuple[lineage_pb2.FlowActivity.ValueType, lineage_pb2.FlowOutcome.ValueType, Status.ValueType]:
    """Return the protobuf activity, outcome and status of a flow."""
    activity = activity_of(1, int(run_number_is_ended))
    word = word_of(activity, Outcome(outcome), is_fresh)
    return (
        enum_number(lineage_pb2.FlowActivity, activity.name.lower()),
        enum_number(lineage_pb2.FlowOutcome, outcome),
        enum_number(Status, word.name.lower()),
    )


def status_of(flow: Flow) -> Status.ValueType:
    """Return the protobuf status of a flow."""
    return dimensions(flow.run_number <= flow.ended_run_number, flow.outcome, flow.is_fresh)[2]


def freshness_status(
    last_data_date: str, expected_data_date: str, *, brought_nothing: bool
) -> lineage_pb2.FreshnessStatus.ValueType:
    """Return whether the data is as new as the flow's freshness policy asks."""
    if not last_data_date or not expected_data_date:
        return lineage_pb2.FRESHNESS_STATUS_UNSPECIFIED
    if not is_late(last_data_date, expected_data_date):
        return lineage_pb2.FRESHNESS_STATUS_FRESH
    if brought_nothing:
        return lineage_pb2.FRESHNESS_STATUS_SOURCE_DELAYED
    return lineage_pb2.FRESHNESS_STATUS_OVERDUE


def attached_facts(events: Iterable[lineage_service_pb2.AttachedRunEvent]) -> list[RunFact]:
    """Return the facts that attached run events state."""
    facts = [
        run_fact_of_event(getattr(event, event.WhichOneof("event") or ""), event.event_id) for event in events
    ]
    return [fact for fact in facts if fact is not None]


def version_message(flow: Flow) -> VersionRef:
    """Convert a flow's output version to a protobuf message."""
    message = VersionRef()
    _set_version(message, flow)
    return message


def _set_version(message: VersionRef, flow: Flow) -> None:
    """Write a flow's output version into an empty protobuf message."""
    message.version = flow.version
    message.version_id = flow.version_id
    message.uri = flow.uri
    message.physical_version = flow.physical_version
    message.digest = flow.digest
    message.last_data_date = flow.last_data_date
    message.compute_fingerprint = flow.right_fingerprint
    message.readers_hash = flow.readers_hash
    message.source_token = flow.source_token
    message.instance_revision = flow.computed_revision or flow.instance_revision
    message.change_start = flow.change_start
    message.change_end = flow.change_end


def state_message(flow: Flow, causes: Iterable[Cause]) -> lineage_pb2.FlowState:
    """Convert a flow and the causes of its staleness to a protobuf message."""
    # Field by field: one answer has ten thousand of them, and a constructor with names takes four times as long.
    activity, outcome, status = dimensions(
        flow.run_number <= flow.ended_run_number, flow.outcome, flow.is_fresh
    )
    message = lineage_pb2.FlowState()
    message.flow.instance_id = flow.instance_id
    message.flow.flow_kind = enum_number(FlowKind, flow.flow_kind)
    message.instance_name = flow.instance_name
    message.instance_kind = flow.instance_kind  # type: ignore[assignment]  # stored unchanged
    message.status, message.activity, message.outcome = status, activity, outcome
    message.is_fresh = flow.is_fresh
    for cause in causes:
        set_cause(message.causes.add(), cause)
    if flow.version:
        _set_version(message.current_version, flow)
    message.run_number = flow.run_number
    message.last_run_id = flow.last_run_id
    if activity == lineage_pb2.FLOW_ACTIVITY_RUNNING:
        message.active_run_id = flow.last_run_id
    message.rows_processed = flow.rows_processed
    message.revision = flow.revision
    if flow.expected_data_date:
        message.expected_data_date = flow.expected_data_date
        message.freshness_status = freshness_status(
            flow.last_data_date, flow.expected_data_date, brought_nothing=flow.brought_nothing
        )
    if flow.late_since_time is not None:
        set_time(message.late_since_time, flow.late_since_time)
    if flow.last_run_time is not None:
        set_time(message.last_run_time, flow.last_run_time)
    if flow.failure_type:
        message.failure.type, message.failure.message = flow.failure
    if flow.accepted_time is not None:
        message.accepted_staleness.reason = flow.accepted_reason or ""
        message.accepted_staleness.actor = flow.accepted_by or ""
        set_time(message.accepted_staleness.accept_time, flow.accepted_time)
    return message


def edge_message(edge: Edge, refs: Mapping[int, FlowRef]) -> lineage_pb2.Edge:
    """Convert an edge, whose ends have these references, to a protobuf message."""
    return lineage_pb2.Edge(
        upstream=refs[edge.upstream_id],
        downstream=refs[edge.downstream_id],
        role=edge.role,
        kind=edge.kind,  # type: ignore[arg-type]  # stored unchanged
        consumed_version=edge.consumed_version,
    )
