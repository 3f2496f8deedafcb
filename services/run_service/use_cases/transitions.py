"""Change the status of runs, with their events, timeline entries and queues."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from optaic.rules.limits import longest_text, shorten
from optaic.rules.run_logs import last_within
from optaic.run.v1.run_pb2 import RunError
from redaction import redact
from run_service.domain.statuses import ENDED, RunEvent, RunStatus, sources_of, target_of
from run_service.events import activity_row, run_event
from run_service.store import queues
from run_service.store import transitions as store
from run_service.store.records import Record
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.ending import Manner, ending_of
from run_service.use_cases.retries import plan_retries
from servicekit import audit
from servicekit.database import Connection


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
    flow_run: Manner = "must_end",
    only: RunStatus | None = None,
    pairs: Mapping[str, str] | None = None,
) -> list[Record]:
    """Make a transition for the runs that allow it; return them, for `announce` after the commit.

    With `only`, change only runs of that status. With `pairs` (run id -> flow-run id), change only runs that still have
    that flow run. The flow run of a run that ends is queued to end alike. The locks are taken in the order of all
    transitions: runs, leases, dispatches.
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
    records = await store.update_runs(connection, tenant_id, event_ids, sources, columns, pairs)
    if not records:
        return []
    changed = [record.run.run_id for record in records]
    if len(records) == 1:
        (revision,) = (record.revision for record in records)
        audit.note(f"runs/{changed[0]}", before=revision - 1, after=revision, reason=message)
    ended = records if target in ENDED else []
    paired = [record for record in ended if record.run.orchestrator_run_id]
    effects = store.Effects(
        activities=[
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
        events=[
            run_event(event, tenant_id, record.run, record.last_event_id, deps.clock) for record in records
        ],
        ended=[record.run.run_id for record in ended],
        paired=[record.run.run_id for record in paired],
        endings=[ending_of(deps, tenant_id, record, flow_run) for record in paired],
    )
    await store.write_effects(connection, tenant_id, effects)
    if unpaired := [record.run.run_id for record in ended if not record.run.orchestrator_run_id]:
        # A flow run may have been created although no answer came.
        await queues.cancel_dispatches(connection, tenant_id, unpaired, now)
    if event is RunEvent.FAILED:
        await plan_retries(deps, connection, tenant_id, records)
    return records


def error_json(
    kind: str, message: str, trace_uri: str = "", last_lines: Collection[str] = ()
) -> dict[str, Any]:
    """Return an error as it is stored, without secrets and without NUL, which PostgreSQL cannot store."""
    error = {"type": kind, "message": message, "trace_uri": trace_uri}
    stored: dict[str, Any] = {
        name: shorten(storable(value), longest_text(RunError, name)) for name, value in error.items() if value
    }
    if lines := last_within(list(last_lines)):
        stored["last_lines"] = [storable(line) for line in lines]
    return stored


def storable(text: str) -> str:
    """Return a text of an executor without secrets and without NUL, which PostgreSQL cannot store."""
    return redact(text.replace("\0", ""))


async def fail_runs(
    deps: Dependencies,
    tenant_id: str,
    run_ids: Collection[str],
    kind: str,
    message: str,
    *,
    only: RunStatus | None = None,
    pairs: Mapping[str, str] | None = None,
) -> list[Record]:
    """Fail runs in a transaction of their own; later reports of their executors are refused."""
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
            only=only,
            pairs=pairs,
        )
    announce(deps, tenant_id, records)
    return records


def announce(
    deps: Dependencies, tenant_id: str, records: Collection[Record], flow_run: Manner = "must_end"
) -> None:
    """Send committed changes to watchers, and wake the loops that have to end flow runs now."""
    deps.watches.publish(tenant_id, records)
    ended = [record for record in records if record.status in ENDED]
    if any(not record.run.orchestrator_run_id for record in ended):
        deps.wake_dispatcher()
    if flow_run == "must_end" and any(record.run.orchestrator_run_id for record in ended):
        deps.wake_ender()
