"""The events that lineage-service publishes; the use cases decide when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from lineage_service.conversion import dimensions, freshness_status, set_cause
from lineage_service.domain.causes import Cause, Causes
from lineage_service.domain.flows import Change
from optaic.common.v1.flow_pb2 import FlowKind, FlowRef
from optaic.lineage.v1.lineage_events_pb2 import FlowStatusChange, FlowStatusesChanged
from optaic.lineage.v1.lineage_pb2 import FreshnessStatus
from optaic.rules.events import CHUNK_BYTES
from servicekit.enums import enum_number

SERVICE = "lineage"
_FULL_BYTES = CHUNK_BYTES - 32_000  # the rest is room for event ids and the last causes
_MICROSECONDS = 1_000_000


@dataclass
class ChangeGroup:
    """The part of a change that one run caused; with an empty run id, the part that no single run caused."""

    run_id: str = ""
    changes: list[Change] = field(default_factory=list)
    affected_downstream: int = 0


def change_messages(
    revision: int, groups: Sequence[ChangeGroup], causes: Causes, event_ids: Sequence[str]
) -> Iterator[FlowStatusesChanged]:
    """Yield the messages of one change: at least one, each small enough to be published.

    The last message carries the ids of the applied events. A subscriber that sees an id has seen all its changes.
    """
    pending: FlowStatusesChanged | None = None
    for group in groups:
        for message in _group_messages(revision, group, causes):
            if pending is not None:
                yield pending
            pending = message
    last = pending or FlowStatusesChanged(revision=revision)
    last.caused_by_event_ids.extend(event_ids)
    yield last


def _group_messages(revision: int, group: ChangeGroup, causes: Causes) -> Iterator[FlowStatusesChanged]:
    chunk = _Chunk(revision, group, causes)
    for change in group.changes:
        if chunk.size > _FULL_BYTES:
            yield chunk.message
            chunk = _Chunk(revision, group, causes)
        chunk.add(change)
    if group.changes or group.run_id:
        yield chunk.message


class _Chunk:
    """A message under construction. It skips default values: a propagation can have a hundred thousand changes."""

    def __init__(self, revision: int, group: ChangeGroup, causes: Causes) -> None:
        self.message = FlowStatusesChanged(
            revision=revision, caused_by_run_id=group.run_id, affected_downstream=group.affected_downstream
        )
        self.size = 0
        self._causes = causes
        self._positions: dict[tuple[int, str], int] = {}
        self._of_lists: dict[int, list[int]] = {}  # by the identity of the list: thousands of flows share one
        self._of_upstreams: dict[int, list[int]] = {}
        self._count = 0  # of causes

    def add(self, change: Change) -> None:
        """Add the state of a flow, and those of its causes that are not yet in the message."""
        message = self.message.changes.add()
        message.CopyFrom(
            _template(
                change.flow_kind,
                change.run_number <= change.ended_run_number,
                change.outcome,
                change.is_fresh,
                freshness_status(
                    change.last_data_date, change.expected_data_date, brought_nothing=change.brought_nothing
                ),
            )
        )
        message.flow.instance_id = change.instance_id
        indexes = self._indexes_of(change.flow_id)
        if indexes:
            message.cause_indexes.extend(indexes)
        message.run_number = change.run_number
        if change.last_run_id:
            message.last_run_id = change.last_run_id
        if change.last_run_time is not None:
            _set_time(message.last_run_time, change.last_run_time)
        message.version = change.version
        if change.last_data_date:
            message.last_data_date = change.last_data_date
        if change.expected_data_date:
            message.expected_data_date = change.expected_data_date
        if change.late_since_time is not None:
            _set_time(message.late_since_time, change.late_since_time)
        if change.rows_processed:
            message.rows_processed = change.rows_processed
        if change.failure_type:
            message.failure.type = change.failure_type
            message.failure.message = change.failure_message
        if change.accepted_time is not None:
            accepted = message.accepted_staleness
            accepted.reason, accepted.actor = change.accepted_reason or "", change.accepted_by or ""
            _set_time(accepted.accept_time, change.accepted_time)
        self.size += message.ByteSize() + 4

    def _indexes_of(self, flow_id: int) -> list[int] | None:
        upstream_id = self._causes.upstream_ids.get(flow_id)
        if upstream_id is not None:
            indexes = self._of_upstreams.get(upstream_id)
            if indexes is None:
                indexes = self._of_upstreams[upstream_id] = [
                    self._position_of(self._causes.not_fresh(upstream_id))
                ]
            return indexes
        causes = self._causes.lists.get(flow_id)
        if not causes:
            return None
        if id(causes) not in self._of_lists:
            self._of_lists[id(causes)] = [self._position_of(cause) for cause in causes]
        return self._of_lists[id(causes)]

    def _position_of(self, cause: Cause) -> int:
        position = self._positions.get(cause.key)
        if position is None:
            position = self._positions[cause.key] = self._append(cause)
        return position

    def _append(self, cause: Cause) -> int:
        self.size += set_cause(self.message.causes.add(), cause).ByteSize() + 4
        self._count += 1
        return self._count - 1


def _set_time(time: Timestamp, microseconds: int) -> None:
    time.seconds, rest = divmod(microseconds, _MICROSECONDS)
    time.nanos = rest * 1000


@lru_cache
def _template(
    flow_kind: str,
    run_number_is_ended: bool,
    outcome: str,
    is_fresh: bool,
    freshness: FreshnessStatus.ValueType,
) -> FlowStatusChange:
    """Return the part that thousands of changes share; callers copy it and never modify it."""
    activity, outcome_number, status = dimensions(run_number_is_ended, outcome, is_fresh)
    return FlowStatusChange(
        flow=FlowRef(flow_kind=enum_number(FlowKind, flow_kind)),
        activity=activity,
        outcome=outcome_number,
        status=status,
        is_fresh=is_fresh,
        freshness_status=freshness,
    )
