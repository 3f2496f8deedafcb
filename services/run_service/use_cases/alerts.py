"""Tell of each figure of a completed monitoring that crossed its threshold: on its timeline, and to subscribers."""

from __future__ import annotations

from collections.abc import Sequence

from optaic.rules.monitoring import describe_alert
from optaic.run.v1 import run_pb2
from run_service.events import activity_row, alert_event
from run_service.store import activities
from run_service.store.records import Record
from run_service.use_cases.dependencies import Dependencies
from servicekit import outbox
from servicekit.database import Connection


async def raise_alerts(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    completed: Record,
    result: run_pb2.MonitoringResult,
) -> None:
    """Write an entry of the timeline and an event for each alert, after those of the completion."""
    alerts: Sequence[run_pb2.MonitoringAlert] = result.alerts
    if not alerts:
        return
    now = deps.clock.now()
    rows = [
        activity_row(
            "alert_raised",
            tenant_id,
            completed.run.run_id,
            completed.kind,
            activity_id=deps.ids(),
            actor=completed.executor,
            now=now,
            message=describe_alert(alert.metric, alert.column, alert.value, alert.threshold),
            details={
                "metric": alert.metric,
                "column": alert.column,
                "value": alert.value,
                "threshold": alert.threshold,
            },
        )
        for alert in alerts
    ]
    await activities.insert_activities(connection, rows)
    events = [
        alert_event(tenant_id, completed.run, alert, result.report_uri, deps.ids(), deps.clock)
        for alert in alerts
    ]
    await outbox.append(connection, events)
