"""Live runs and alerts on the channels of Centrifugo; it knows the names of channels and what they carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optaic.common.v1 import flow_pb2
from optaic.rules.realtime import alerts_channel, progress_channel
from optaic.run.v1 import run_events_pb2, run_pb2
from run_service import events
from servicekit.enums import enum_word
from servicekit.events import Event
from servicekit.outlet import Outlet, Publication

_ALERT = run_events_pb2.MonitoringAlertRaised.DESCRIPTOR.full_name


class LiveRuns:
    """The way of run-service's own events, once the broker has them, to the channels of runs and instances."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def put(self, published: Sequence[Event]) -> None:
        """Put what concerns a run or an alert on its channel. An event that comes again is the same message."""
        self._outlet.put([found for each in published if (found := _publication(each)) is not None])


def _publication(event: Event) -> Publication | None:
    time = event.time.isoformat()
    if event.type == _ALERT:
        raised = run_events_pb2.MonitoringAlertRaised.FromString(event.payload)
        channel, data = alerts_channel(event.tenant_id, raised.instance_id), _alert(raised)
    elif (run := events.run_of(event)) is not None:
        channel, data = progress_channel(event.tenant_id, run.run_id), _progress(run)
    else:
        return None
    return Publication(
        (channel,), {**data, "time": time}, idempotency_key=event.event_id, tenant_id=event.tenant_id
    )


def _progress(run: run_pb2.Run) -> dict[str, Any]:
    return {
        "status": enum_word(run_pb2.RunStatus, run.status),
        "progress_pct": run.progress_pct,
        "progress_message": run.progress_message,
    }


def _alert(raised: run_events_pb2.MonitoringAlertRaised) -> dict[str, Any]:
    return {
        "flow_kind": enum_word(flow_pb2.FlowKind, raised.flow_kind),
        "run_id": raised.run_id,
        "run_number": raised.run_number,
        "metric": raised.alert.metric,
        "column": raised.alert.column,
        "value": raised.alert.value,
        "threshold": raised.alert.threshold,
    }
