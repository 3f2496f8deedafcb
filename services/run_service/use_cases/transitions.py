"""Every change of a run that exists, with its event, its timeline entry and what it means for the queues."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from run_service.domain import (
    ENDED,
    NOT_RETRIED,
    RunEvent,
    RunStatus,
    retry_delay,
    sources_of,
    target_of,
)
from run_service.events import activity_row, run_event
from run_service.store import Connection, activities, queues
from run_service.store import runs as run_store
from run_service.store.records import Record
from run_service.use_cases.dependencies import Dependencies
from servicekit import outbox

# What becomes of the flow run: it goes on or has ended by itself, or it must be cancelled.
FlowRunFate = Literal["goes_on", "has_ended", "cancel"]


async def change_runs(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    run_ids: Collection[str],
    event: RunEvent,
    *,
    actor: str,
    message: str = "",
    values: Mapping[str, Any] | None = None,
    flow_run: FlowRunFate = "goes_on",
    only: RunStatus | None = None,
) -> list[Record]:
    """Make the transition for those runs in which it is possible (or only from one status); return them, to be published after the commit.

    Locks runs before leases before dispatches, as everything here does.
    """
    now = deps.clock.now()
    target = target_of(event)
    columns: dict[str, Any] = {"status": target.value, **(values or {})}
    if target in ENDED:
        columns["end_time"] = now
    event_ids = {run_id: deps.ids() for run_id in sorted(run_ids)}
    if not event_ids:
        return []
    sources = sources_of(event) if only is None else {only}
    records = await run_store.update_runs(connection, tenant_id, event_ids, sources, columns)
    if not records:
        return []
    changed = [record.run.run_id for record in records]
    await activities.insert_activities(
        connection,
        [
            activity_row(
                event,
                tenant_id,
                record.run.run_id,
                record.kind,
                activity_id=deps.ids(),
                actor=actor,
                now=now,
                message=message,
                details={"type": record.run.error.type} if record.run.HasField("error") else None,
            )
            for record in records
        ],
    )
    await outbox.append(
        connection,
        [run_event(event, tenant_id, record.run, record.last_event_id, deps.clock) for record in records],
    )
    if target in ENDED:
        await queues.delete_leases(connection, tenant_id, changed)
    if flow_run == "has_ended":
        await queues.delete_dispatches(connection, [(tenant_id, run_id) for run_id in changed])
    elif flow_run == "cancel":
        await queues.cancel_dispatches(connection, tenant_id, changed, now)
    if event is RunEvent.FAILED:
        await queues.insert_retries(connection, _retries(tenant_id, records, deps))
    return records


def _retries(tenant_id: str, records: Collection[Record], deps: Dependencies) -> list[dict[str, Any]]:
    now, rows = deps.clock.now(), []
    for record in records:
        if record.run.error.type in NOT_RETRIED:
            continue
        delay = retry_delay(record.retry_policy, record.run.attempt) if record.retry_policy else None
        if delay is not None:
            rows.append({"tenant_id": tenant_id, "run_id": record.run.run_id, "due_time": now + delay})
    return rows


def error_json(kind: str, message: str, trace_uri: str = "") -> dict[str, str]:
    """Return an error as it is stored; PostgreSQL stores no NUL."""
    error = {"type": kind, "message": message, "trace_uri": trace_uri}
    return {name: value.replace("\0", "") for name, value in error.items() if value}


async def fail_runs(
    deps: Dependencies,
    tenant_id: str,
    run_ids: Collection[str],
    kind: str,
    message: str,
    *,
    flow_run: FlowRunFate,
    only: RunStatus | None = None,
) -> list[Record]:
    """Give runs up, in a transaction of their own: their executors are fenced from now on."""
    async with deps.database.transaction(tenant_id) as connection:
        records = await change_runs(
            deps,
            connection,
            tenant_id,
            run_ids,
            RunEvent.FAILED,
            actor="run-service",
            message=message,
            values={"error": error_json(kind, message), "fencing_token": None},
            flow_run=flow_run,
            only=only,
        )
    announce(deps, tenant_id, records)
    return records


def announce(deps: Dependencies, tenant_id: str, records: Collection[Record]) -> None:
    """Tell watchers and the dispatcher of committed changes."""
    deps.watches.publish(tenant_id, records)
    if any(record.status in ENDED for record in records):
        deps.wake_dispatcher()
