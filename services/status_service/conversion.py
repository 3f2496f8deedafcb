"""Convert between protobuf messages and the domain, in both directions; decide nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_events_pb2, lineage_pb2
from optaic.rules.statuses import MIN_SEVERITY, NOT_INITIALIZED, SEVERITY
from optaic.run.v1 import run_events_pb2
from optaic.status.v1 import status_pb2
from servicekit.enums import enum_number, enum_word
from servicekit.terms import label_term
from servicekit.times import set_time
from status_service.domain.board import Board, Flow, Instance, Wait
from status_service.domain.history import Window
from status_service.domain.statuses import is_aggregated


def instance_of(instance: instance_pb2.Instance, event_rank: int, *, is_deleted: bool = False) -> Instance:
    """Return what matters here of an instance's snapshot."""
    contract = instance.status_aggregation_contract
    return Instance(
        instance_id=instance.instance_id,
        revision=instance.revision,
        update_time=instance.update_time.ToDatetime(UTC),
        event_rank=event_rank,
        name=instance.name,
        project_id=instance.project_id,
        kind=enum_word(instance_pb2.InstanceKind, instance.kind),
        state=enum_word(instance_pb2.InstanceState, instance.state),
        flow_kinds=tuple(enum_word(flow_pb2.FlowKind, flow.flow_kind) for flow in instance.flows),
        status_priority=tuple(contract.status_priority),
        aggregation_method=contract.aggregation_method or MIN_SEVERITY,
        required_flows=tuple(enum_word(flow_pb2.FlowKind, kind) for kind in contract.required_flows),
        owner=instance.owner,
        label_terms=tuple(sorted(label_term(key, value) for key, value in instance.labels.items())),
        is_deleted=is_deleted,
    )


def flows_of(message: lineage_events_pb2.FlowStatusesChanged) -> dict[tuple[str, str], Flow]:
    """Return the flows that a batch of changes speaks of."""
    flows = {}
    for change in message.changes:
        status = status_pb2.FlowStatus(
            flow_kind=change.flow.flow_kind,
            status=change.status,
            activity=change.activity,
            outcome=change.outcome,
            is_fresh=change.is_fresh,
            causes=[message.causes[index] for index in change.cause_indexes],
            version=change.version,
            last_run_id=change.last_run_id,
            run_number=change.run_number,
            last_run_time=change.last_run_time if change.HasField("last_run_time") else None,
            last_data_date=change.last_data_date,
            rows_processed=change.rows_processed,
            freshness_status=change.freshness_status,
            expected_data_date=change.expected_data_date,
            late_since_time=change.late_since_time if change.HasField("late_since_time") else None,
            failure=change.failure if change.HasField("failure") else None,
            accepted_staleness=change.accepted_staleness if change.HasField("accepted_staleness") else None,
        )
        word = enum_word(flow_pb2.Status, change.status).upper()
        flows[change.flow.instance_id, enum_word(flow_pb2.FlowKind, change.flow.flow_kind)] = Flow(
            revision=message.revision,
            status=word if word in SEVERITY else NOT_INITIALIZED,
            version=change.version,
            body=status.SerializeToString(deterministic=True),
        )
    return flows


def wait_of(message: run_events_pb2.FlowWaitChanged) -> dict[tuple[str, str], Wait]:
    """Return what a scheduled time of a flow waits for."""
    body = message.wait.SerializeToString(deterministic=True) if message.HasField("wait") else b""
    key = (message.instance_id, enum_word(flow_pb2.FlowKind, message.flow_kind))
    return {key: Wait(message.number, body)}


def instance_status_of(board: Board, instance_id: str) -> status_pb2.InstanceStatus:
    """Return the status message of a known instance, without revision and time of the change."""
    instance = board.instances[instance_id]
    known = board.flows.get(instance_id, {})
    waits = board.waits.get(instance_id, {})
    flows = [
        _flow_status(
            kind,
            known.get(kind),
            waits.get(kind),
            counts=is_aggregated(instance.kind, kind, instance.required_flows),
        )
        for kind in instance.flow_kinds
    ]
    last = max(flows, key=_run_order, default=status_pb2.FlowStatus())
    return status_pb2.InstanceStatus(
        instance_id=instance_id,
        instance_name=instance.name,
        project_id=instance.project_id,
        instance_kind=enum_number(instance_pb2.InstanceKind, instance.kind),
        status=enum_number(flow_pb2.Status, board.status(instance_id).lower()),
        instance_state=enum_number(instance_pb2.InstanceState, instance.state),
        flows=flows,
        last_run_id=last.last_run_id,
        last_run_time=last.last_run_time if last.HasField("last_run_time") else None,
    )


def _run_order(flow: status_pb2.FlowStatus) -> tuple[int, int, str]:
    return flow.last_run_time.seconds, flow.last_run_time.nanos, flow.last_run_id


def _flow_status(
    flow_kind: str, flow: Flow | None, wait: Wait | None, *, counts: bool
) -> status_pb2.FlowStatus:
    status = status_pb2.FlowStatus(
        flow_kind=enum_number(flow_pb2.FlowKind, flow_kind),
        status=flow_pb2.STATUS_NOT_INITIALIZED,
        activity=lineage_pb2.FLOW_ACTIVITY_IDLE,
        outcome=lineage_pb2.FLOW_OUTCOME_NEVER,
    )
    if flow is not None:
        status = status_pb2.FlowStatus.FromString(flow.body)
    status.is_aggregated = counts
    if wait is not None and wait.body:
        status.waiting_for.ParseFromString(wait.body)
    return status


def cause_kinds_of(status: status_pb2.InstanceStatus) -> tuple[str, ...]:
    """Return the kinds of the causes that a status shows, each once."""
    kinds = {cause.kind for flow in status.flows for cause in flow.causes}
    return tuple(sorted(enum_word(lineage_pb2.CauseKind, kind) for kind in kinds))


def stamped(
    body: bytes, revision: int, update_time: datetime, since_time: datetime | None
) -> status_pb2.InstanceStatus:
    """Return a stored status with the revision and time of its last change, and since when it is this status."""
    status = status_pb2.InstanceStatus.FromString(body)
    status.revision = revision
    set_time(status.update_time, update_time)
    if since_time is not None:
        set_time(status.status_since_time, since_time)
    return status


def transition(
    instance_id: str,
    from_status: str,
    to_status: str,
    revision: int,
    create_time: datetime,
    caused_by_run_id: str,
    next_time: datetime | None,
    now: datetime,
) -> status_pb2.StatusTransition:
    """Return one entry of an instance's history, and how long it held before the next one, or until now."""
    message = status_pb2.StatusTransition(
        instance_id=instance_id,
        from_status=enum_number(flow_pb2.Status, from_status.lower()),
        to_status=enum_number(flow_pb2.Status, to_status.lower()),
        revision=revision,
        caused_by_run_id=caused_by_run_id,
    )
    set_time(message.create_time, create_time)
    if next_time is not None:
        set_time(message.end_time, next_time)
    if to_status:
        message.duration.FromTimedelta(max((next_time or now) - create_time, timedelta()))
    return message


def availability(window: Window, ready: timedelta, known: timedelta) -> status_pb2.WindowAvailability:
    """Return the share of a window in which an instance was READY."""
    message = status_pb2.WindowAvailability(ready_share=ready / known if known else None)
    set_time(message.start_time, window.start_time)
    set_time(message.end_time, window.end_time)
    message.ready_duration.FromTimedelta(ready)
    message.known_duration.FromTimedelta(known)
    return message


def past_status(
    instance_id: str, name: str, project_id: str, kind: str, status: str
) -> status_pb2.InstanceStatus:
    """Return the status that an instance had, without its flows, revision and times."""
    return status_pb2.InstanceStatus(
        instance_id=instance_id,
        instance_name=name,
        project_id=project_id,
        instance_kind=enum_number(instance_pb2.InstanceKind, kind),
        status=enum_number(flow_pb2.Status, status.lower()),
    )
