"""The events that run-service publishes; the use cases decide when.

It makes the entries of a run's timeline too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from optaic.rules.events import (
    ALERT_RAISED,
    FLOW_WAIT_CHANGED,
    REFRESH_ENDED,
    REFRESH_RESUMED,
    REFRESH_SUBMITTED,
    RUN_PARTICIPLES,
    RUN_PROGRESSED,
)
from optaic.run.v1 import refresh_pb2, run_events_pb2, run_pb2
from redaction import redact, redact_value
from run_service.domain.statuses import RunStatus
from run_service.domain.timeline import activity_type
from servicekit.clock import Clock
from servicekit.events import Event, make_event
from servicekit.ids import IdSource

SERVICE = "run"
_MESSAGES: dict[str, type[Message]] = {
    "submitted": run_events_pb2.RunSubmitted,
    "started": run_events_pb2.RunStarted,
    RUN_PROGRESSED: run_events_pb2.RunProgressed,
    "completed": run_events_pb2.RunCompleted,
    "failed": run_events_pb2.RunFailed,
    "cancelled": run_events_pb2.RunCancelled,
}
_REFRESH_MESSAGES: dict[str, type[Message]] = {
    REFRESH_SUBMITTED: run_events_pb2.RefreshSubmitted,
    REFRESH_RESUMED: run_events_pb2.RefreshResumed,
    REFRESH_ENDED: run_events_pb2.RefreshEnded,
}


_BY_TYPE = {message.DESCRIPTOR.full_name: message for message in _MESSAGES.values()}
_RUN = "run"  # the field of each message above that has the run


def run_event(happening: str, tenant_id: str, run: run_pb2.Run, event_id: str, clock: Clock) -> Event:
    """Return the event of a change, with the run after it, except its manifest of artifacts, which may be large."""
    message = _MESSAGES[happening](run=run)
    published: run_pb2.Run = getattr(message, _RUN)
    published.ClearField("artifact_manifest")
    return make_event(SERVICE, tenant_id, message, happening, run.instance_id, clock, lambda: event_id)


def run_of(event: Event) -> run_pb2.Run | None:
    """Return the run that an event is about, after the change; None for an event of something else."""
    message = _BY_TYPE.get(event.type)
    if message is None:
        return None
    found: run_pb2.Run = getattr(message.FromString(event.payload), _RUN)
    return found


def alert_event(
    tenant_id: str,
    run: run_pb2.Run,
    alert: run_pb2.MonitoringAlert,
    report_uri: str,
    event_id: str,
    clock: Clock,
) -> Event:
    """Return the event of a figure of a completed monitoring that crossed its threshold."""
    message = run_events_pb2.MonitoringAlertRaised(
        instance_id=run.instance_id,
        flow_kind=run.flow_kind,
        run_id=run.run_id,
        run_number=run.run_number,
        alert=alert,
        end_time=run.end_time,
        report_uri=report_uri,
    )
    return make_event(SERVICE, tenant_id, message, ALERT_RAISED, run.instance_id, clock, lambda: event_id)


def wait_event(tenant_id: str, changed: run_events_pb2.FlowWaitChanged, clock: Clock, ids: IdSource) -> Event:
    """Return the event of what a scheduled time of a flow waits for now."""
    return make_event(SERVICE, tenant_id, changed, FLOW_WAIT_CHANGED, changed.instance_id, clock, ids)


def refresh_event(
    happening: str, tenant_id: str, refresh: refresh_pb2.Refresh, clock: Clock, ids: IdSource
) -> Event:
    """Return the event of a refresh that has begun, goes on or has ended, with the refresh after that."""
    message = _REFRESH_MESSAGES[happening](refresh=refresh)
    return make_event(SERVICE, tenant_id, message, happening, refresh.refresh_id, clock, ids)


def last_event(status: RunStatus, tenant_id: str, run: run_pb2.Run, event_id: str, clock: Clock) -> Event:
    """Return the event of a run's last transition again."""
    return run_event(RUN_PARTICIPLES[status], tenant_id, run, event_id, clock)


def forget_details(run: run_pb2.Run) -> None:
    """Clear the output profile of a refresh and the manifest of artifacts, in place."""
    run.ClearField("artifact_manifest")
    if run.HasField("pipeline"):
        run.pipeline.ClearField("output_profile")


def activity_row(
    happening: str,
    tenant_id: str,
    run_id: str,
    kind: str,
    *,
    activity_id: str,
    actor: str,
    now: datetime,
    message: str = "",
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return one entry of a run's timeline."""
    return {
        "tenant_id": tenant_id,
        "run_id": run_id,
        "activity_id": activity_id,
        "type": activity_type(kind, happening),
        "actor": actor,
        "message": redact(message),
        "details": redact_value(details) if details else None,
        "create_time": now,
    }
