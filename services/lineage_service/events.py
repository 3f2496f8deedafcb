"""Protobuf in, facts out; changes in, protobuf out: the shapes of events, and no decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from functools import lru_cache

from google.protobuf.message import Message

from lineage_service.domain.causes import Cause, CauseKind
from lineage_service.domain.errors import not_a_flow_kind, not_a_uuid, run_without_number
from lineage_service.domain.flows import (
    Change,
    EdgeSpec,
    Flow,
    FlowKey,
    FlowSpec,
    Input,
    Outcome,
    Phase,
    RunFact,
    Snapshot,
    activity_of,
    word_of,
)
from optaic.common.v1.flow_pb2 import FlowKind, FlowRef, Status
from optaic.instance.v1 import instance_events_pb2
from optaic.instance.v1.instance_pb2 import Instance
from optaic.lineage.v1 import lineage_pb2
from optaic.lineage.v1.lineage_events_pb2 import FlowStatusChange, FlowStatusesChanged
from optaic.rules.events import CHUNK_BYTES
from optaic.run.v1 import run_events_pb2
from servicekit.enums import enum_number, enum_word
from servicekit.ids import is_id

SERVICE = "lineage"
INSTANCE_CONSUMER = "lineage-instance-events"
RUN_CONSUMER = "lineage-run-events"
_FULL_BYTES = CHUNK_BYTES - 32_000  # the ids of events and the last causes take what is left
_MICROSECONDS = 1_000_000

_PHASES: dict[type[Message], Phase] = {
    run_events_pb2.RunSubmitted: Phase.ACTIVE,
    run_events_pb2.RunStarted: Phase.ACTIVE,
    run_events_pb2.RunCompleted: Phase.COMPLETED,
    run_events_pb2.RunFailed: Phase.FAILED,
    run_events_pb2.RunCancelled: Phase.CANCELLED,
}
_SNAPSHOTS: dict[type[Message], bool] = {  # whether it marks a deletion
    instance_events_pb2.InstanceCreated: False,
    instance_events_pb2.InstanceUpdated: False,
    instance_events_pb2.InstanceActivated: False,
    instance_events_pb2.InstanceDeletionRequested: True,
    instance_events_pb2.InstanceDeleted: True,
}


@lru_cache
def kind_name(number: int) -> str:
    """Return the stored name of a flow kind.

    Raises:
        InvalidArgumentError: It is none.
    """
    if number == FlowKind.FLOW_KIND_UNSPECIFIED or number not in FlowKind.values():
        raise not_a_flow_kind(number)
    return enum_word(FlowKind, number)


def flow_key(ref: FlowRef) -> FlowKey:
    """Return the key of a flow.

    Raises:
        InvalidArgumentError: It names no flow.
    """
    return FlowKey(_id(ref.instance_id), kind_name(ref.flow_kind))


def _id(text: str) -> str:
    if not is_id(text):
        raise not_a_uuid(text)
    return text


def snapshot_of(instance: Instance, *, is_deleted: bool = False, event_id: str = "") -> Snapshot:
    """Return what lineage needs of an instance."""
    flows = tuple(
        FlowSpec(
            kind_name(flow.flow_kind),
            flow.compute_fingerprint,
            tuple(EdgeSpec(flow_key(edge.upstream), edge.role, edge.kind) for edge in flow.upstreams),
            flow.fingerprint_change,
            flow.verified_output.run_number,
            flow.verified_output.compute_fingerprint,
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


def snapshot_of_event(message: Message, event_id: str) -> Snapshot | None:
    """Return the snapshot an instance event carries; None for another event."""
    is_deleted = _SNAPSHOTS.get(type(message))
    if is_deleted is None:
        return None
    return snapshot_of(message.instance, is_deleted=is_deleted, event_id=event_id)  # type: ignore[attr-defined]  # all of them have one


def run_fact_of_event(message: Message, event_id: str) -> RunFact | None:
    """Return the fact a run event states; None for one that lineage does not care for."""
    phase = _PHASES.get(type(message))
    if phase is None:
        return None
    run = message.run  # type: ignore[attr-defined]  # all of them have one
    # A run that was refused has the number 0: it belongs to no sequence and moves nothing.
    if run.run_number < (0 if phase is Phase.CANCELLED else 1):
        raise run_without_number(run.run_id)
    fact = RunFact(
        FlowKey(_id(run.instance_id), kind_name(run.flow_kind)),
        _id(run.run_id),
        run.run_number,
        phase,
        run.submit_time.ToDatetime(UTC) if run.HasField("submit_time") else None,
        event_id=event_id,
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
        is_partial_range=run.is_partial_range,
        instance_revision=run.instance_revision,
        readers_hash=output.readers_hash,
        base_readers_hash=output.base_readers_hash,
    )


def flow_ref(instance_id: str, flow_kind: str) -> FlowRef:
    """Return the protobuf identity of a flow."""
    return FlowRef(instance_id=instance_id, flow_kind=enum_number(FlowKind, flow_kind))


def cause_message(cause: Cause) -> lineage_pb2.Cause:
    """Return the protobuf cause."""
    origin = cause.origin
    overdue = origin if cause.kind is CauseKind.OVERDUE and isinstance(origin, Flow) else None
    return lineage_pb2.Cause(
        kind=cause.kind.value,  # type: ignore[arg-type]  # the domain numbers them alike; a test compares
        origin=flow_ref(origin.instance_id, origin.flow_kind),
        origin_name=origin.instance_name,
        from_version=cause.from_version,
        to_version=cause.to_version,
        expected_data_date=overdue.overdue_date if overdue else "",
        last_data_date=overdue.last_data_date if overdue else "",
        message=cause.message,
    )


@lru_cache
def dimensions(
    run_number_is_ended: bool,
    outcome: str,
    is_fresh: bool,
) -> tuple[lineage_pb2.FlowActivity.ValueType, lineage_pb2.FlowOutcome.ValueType, Status.ValueType]:
    """Return the protobuf activity, outcome and word."""
    activity = activity_of(1, int(run_number_is_ended))
    word = word_of(activity, Outcome(outcome), is_fresh)
    return (
        enum_number(lineage_pb2.FlowActivity, activity.name.lower()),
        enum_number(lineage_pb2.FlowOutcome, outcome),
        enum_number(Status, word.name.lower()),
    )


def freshness_status(overdue_date: str) -> lineage_pb2.FreshnessStatus.ValueType:
    """Return how the data's date stands to the policy."""
    if overdue_date:
        return lineage_pb2.FRESHNESS_STATUS_OVERDUE
    return lineage_pb2.FRESHNESS_STATUS_UNSPECIFIED


@dataclass
class ChangeGroup:
    """The part of a change that stems from one run, or, with an empty id, from no single one."""

    run_id: str = ""
    changes: list[Change] = field(default_factory=list)
    causes: list[list[Cause]] = field(default_factory=list)  # beside the changes; equal lists are one list
    affected_downstream: int = 0


def change_messages(
    revision: int, groups: Sequence[ChangeGroup], event_ids: Sequence[str]
) -> Iterator[FlowStatusesChanged]:
    """Yield the messages of one change, at least one, each small enough to be published.

    The ids of the applied events come with the last one: who has seen them has seen every change before.
    """
    pending: FlowStatusesChanged | None = None
    for group in groups:
        for chunk in _chunks(revision, group):
            if pending is not None:
                yield pending
            pending = chunk
    last = pending or FlowStatusesChanged(revision=revision)
    last.caused_by_event_ids.extend(event_ids)
    yield last


def _chunks(revision: int, group: ChangeGroup) -> Iterator[FlowStatusesChanged]:
    chunk, size = _head(revision, group), 0
    positions: dict[Cause, int] = {}
    indexes: dict[int, list[int]] = {}  # of a list of causes, by its identity: thousands share one
    for change, causes in zip(group.changes, group.causes, strict=True):
        if size > _FULL_BYTES:
            yield chunk
            chunk, size, positions, indexes = _head(revision, group), 0, {}, {}
        if causes and id(causes) not in indexes:
            for cause in causes:
                if cause not in positions:
                    positions[cause] = len(positions)
                    message = cause_message(cause)
                    chunk.causes.append(message)
                    size += message.ByteSize() + 4
            indexes[id(causes)] = [positions[cause] for cause in causes]
        size += _add_change(chunk, change, indexes.get(id(causes))).ByteSize() + 4
    if group.changes or group.run_id:
        yield chunk


def _head(revision: int, group: ChangeGroup) -> FlowStatusesChanged:
    return FlowStatusesChanged(
        revision=revision, caused_by_run_id=group.run_id, affected_downstream=group.affected_downstream
    )


def _add_change(
    chunk: FlowStatusesChanged, change: Change, cause_indexes: Sequence[int] | None
) -> FlowStatusChange:
    # In place, and nothing that is its default: a propagation has a hundred thousand of them.
    message = chunk.changes.add()
    flow = message.flow
    flow.instance_id = change.instance_id
    flow.flow_kind = enum_number(FlowKind, change.flow_kind)
    message.activity, message.outcome, message.status = dimensions(
        change.run_number <= change.ended_run_number, change.outcome, change.is_fresh
    )
    if change.is_fresh:
        message.is_fresh = True
    if cause_indexes:
        message.cause_indexes.extend(cause_indexes)
    message.run_number = change.run_number
    if change.last_run_id:
        message.last_run_id = change.last_run_id
    if change.last_run_time is not None:
        time = message.last_run_time
        time.seconds, microseconds = divmod(change.last_run_time, _MICROSECONDS)
        time.nanos = microseconds * 1000
    message.version = change.version
    if change.last_data_date:
        message.last_data_date = change.last_data_date
    if change.rows_processed:
        message.rows_processed = change.rows_processed
    if change.overdue_date:
        message.freshness_status = freshness_status(change.overdue_date)
    return message
