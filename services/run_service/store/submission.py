"""Writing a new run: its number, then everything about it in one statement; admission is not decided here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from optaic.run.v1 import run_pb2
from run_service.domain import RetryPolicy
from run_service.store.records import columns_of, retry_policy_json
from run_service.store.tables import activities, dispatches, extensions, runs
from servicekit import schema
from servicekit.events import Event
from servicekit.outbox import outbox_row

# The row lock of the counter is held until the commit: admissions of one flow come one after the other.
_TAKE_NUMBER = sa.text("""
    insert into flows (tenant_id, instance_id, flow_kind, last_run_number)
    values (:tenant_id, cast(:instance_id as uuid), :flow_kind, 1)
    on conflict (tenant_id, instance_id, flow_kind) do update
        set last_run_number = flows.last_run_number + 1 where not flows.is_deleted
    returning last_run_number
""")
_LATER_COLUMNS = {"revision", "fencing_token", "executor", "progress_event_time"}
_DISPATCH_COLUMNS = (
    "tenant_id, run_id, action, instance_id, flow_kind, name, orchestrator_run_id, submit_time, due_time"
)


def _names(table: sa.Table, without: set[str]) -> str:
    return ", ".join(column.name for column in table.c if column.name not in without)


def _insert(table: sa.Table, columns: str, key: str) -> str:
    """Insert the document's part `key`; jsonb_populate_record gives each column its type."""
    source = f"jsonb_populate_record(null::{table.name}, cast(:document as jsonb) -> '{key}')".replace(
        "::", r"\:\:"
    )
    return f"insert into {table.name} ({columns}) select {columns} from {source}"  # noqa: S608 - names of our own tables


def _statement(kind: str) -> sa.TextClause:
    """One data-modifying CTE: where the run is not inserted (a conflict), nothing is.

    One document instead of seventy parameters: the driver caches no statement of more than fifty.
    """
    event = _names(schema.outbox, {"id", "payload"})
    return sa.text(rf"""
        with inserted as (
            {_insert(runs, _names(runs, _LATER_COLUMNS), "run")} on conflict do nothing returning tenant_id, run_id
        ), extension as (
            insert into {extensions[kind].name} (tenant_id, run_id) select tenant_id, run_id from inserted
        ), activity as (
            {_insert(activities, _names(activities, set()), "activity")} where exists (select from inserted)
        ), event as (
            insert into outbox ({event}, payload)
            select {event}, cast(:payload as bytea)
            from jsonb_populate_record(null\:\:outbox, cast(:document as jsonb) -> 'event')
            where exists (select from inserted)
        ), dispatch as (
            {_insert(dispatches, _DISPATCH_COLUMNS, "dispatch")}
            where exists (select from inserted) and cast(:document as jsonb) ? 'dispatch'
        ), reply as (
            update request_replies set response = cast(:response as bytea), write_tokens = array[:write_token]
            from inserted
            where request_replies.tenant_id = inserted.tenant_id and method = :method and request_id = :request_id
        )
        select 1 from inserted
    """)  # noqa: S608 - names of our own tables


_STATEMENTS = {kind: _statement(kind) for kind in extensions}


@dataclass(frozen=True)
class Submission:
    """A new run with all that is written beside it."""

    run: run_pb2.Run
    instance_name: str
    retry_policy: RetryPolicy | None
    event: Event
    activity: Mapping[str, Any]
    # create: make a flow run; observe: it exists already; None: refused, there is nothing to execute.
    dispatch_action: str | None
    submit_time: datetime
    # The claim of `servicekit.idempotency` that this run answers; without a request id there is none.
    method: str = ""
    request_id: str = ""


async def take_run_number(
    connection: AsyncConnection, tenant_id: str, instance_id: str, flow_kind: str
) -> int | None:
    """Return the flow's next run number and hold its counter; None: the instance is being deleted."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id, "flow_kind": flow_kind}
    return (await connection.execute(_TAKE_NUMBER, parameters)).scalar_one_or_none()


async def insert_submission(connection: AsyncConnection, tenant_id: str, submission: Submission) -> bool:
    """Insert a run, its extension, activity, event, dispatch and reply; False: another run is in its place."""
    policy = submission.retry_policy
    run = {
        **columns_of(submission.run),
        "tenant_id": tenant_id,
        "instance_name": submission.instance_name,
        "last_event_id": submission.event.event_id,
        "retry_policy": retry_policy_json(policy) if policy else None,
    }
    event = outbox_row(submission.event)
    payload = event.pop("payload")
    document: dict[str, Any] = {"run": run, "event": event, "activity": submission.activity}
    if submission.dispatch_action is not None:
        document["dispatch"] = {
            "tenant_id": tenant_id,
            "run_id": run["run_id"],
            "action": submission.dispatch_action,
            "instance_id": run["instance_id"],
            "flow_kind": run["flow_kind"],
            "name": f"{submission.instance_name}-{submission.run.run_number}",
            "orchestrator_run_id": run["orchestrator_run_id"],
            "submit_time": submission.submit_time,
            "due_time": submission.submit_time,
        }
    parameters = {
        "document": json.dumps(document, default=datetime.isoformat),
        "payload": payload,
        "method": submission.method,
        "request_id": submission.request_id,
        "response": submission.run.SerializeToString() if submission.request_id else b"",
        "write_token": submission.event.token,
    }
    return (await connection.execute(_STATEMENTS[run["kind"]], parameters)).first() is not None
