"""Writing a new run: its number, then everything about it in one statement; admission is not decided here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
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
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy types its constructor loosely
_RUN_COLUMNS = tuple(
    column
    for column in runs.c
    if column.name not in {"revision", "fencing_token", "executor", "progress_event_time"}
)
_DISPATCH_COLUMNS = (
    "tenant_id",
    "run_id",
    "action",
    "instance_id",
    "flow_kind",
    "name",
    "orchestrator_run_id",
    "submit_time",
    "due_time",
)
_OUTBOX_COLUMNS = tuple(column for column in schema.outbox.c if column.name != "id")


def _insert(table: sa.Table, columns: list[sa.Column[Any]], prefix: str) -> str:
    names = ", ".join(column.name for column in columns)
    values = ", ".join(
        f"cast(:{prefix}_{column.name} as {column.type.compile(dialect=_DIALECT)})" for column in columns
    )
    return f"insert into {table.name} ({names}) select {values}"


def _statement(kind: str, has_dispatch: bool) -> sa.TextClause:
    """One data-modifying CTE: where the run is not inserted (a conflict), nothing is."""
    parts = [
        f"with inserted as ({_insert(runs, list(_RUN_COLUMNS), 'run')} on conflict do nothing returning tenant_id, run_id)",
        f"extension as (insert into {extensions[kind].name} (tenant_id, run_id) select tenant_id, run_id from inserted)",  # noqa: S608 - a constant of ours
        f"activity as ({_insert(activities, list(activities.c), 'activity')} from inserted)",
        f"event as ({_insert(schema.outbox, list(_OUTBOX_COLUMNS), 'event')} from inserted)",
    ]
    if has_dispatch:
        columns = [dispatches.c[name] for name in _DISPATCH_COLUMNS]
        parts.append(f"dispatch as ({_insert(dispatches, columns, 'dispatch')} from inserted)")
    return sa.text(",\n".join(parts) + "\nselect 1 from inserted")


_STATEMENTS = {(kind, flag): _statement(kind, flag) for kind in extensions for flag in (True, False)}


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


async def take_run_number(
    connection: AsyncConnection, tenant_id: str, instance_id: str, flow_kind: str
) -> int | None:
    """Return the flow's next run number and hold its counter; None: the instance is being deleted."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id, "flow_kind": flow_kind}
    return (await connection.execute(_TAKE_NUMBER, parameters)).scalar_one_or_none()


async def insert_submission(connection: AsyncConnection, tenant_id: str, submission: Submission) -> bool:
    """Insert a run, its extension, activity, event and dispatch; False: another run is in its place."""
    columns = columns_of(submission.run)
    parameters = {f"run_{name}": _plain(value) for name, value in columns.items()}
    policy = submission.retry_policy
    parameters.update(
        run_tenant_id=tenant_id,
        run_instance_name=submission.instance_name,
        run_last_event_id=submission.event.event_id,
        run_retry_policy=json.dumps(retry_policy_json(policy)) if policy else None,
    )
    parameters.update({f"activity_{name}": _plain(value) for name, value in submission.activity.items()})
    parameters.update({f"event_{name}": value for name, value in outbox_row(submission.event).items()})
    if submission.dispatch_action is not None:
        parameters.update(
            dispatch_tenant_id=tenant_id,
            dispatch_run_id=submission.run.run_id,
            dispatch_action=submission.dispatch_action,
            dispatch_instance_id=submission.run.instance_id,
            dispatch_flow_kind=columns["flow_kind"],
            dispatch_name=f"{submission.instance_name}-{submission.run.run_number}",
            dispatch_orchestrator_run_id=columns["orchestrator_run_id"],
            dispatch_submit_time=submission.submit_time,
            dispatch_due_time=submission.submit_time,
        )
    statement = _STATEMENTS[columns["kind"], submission.dispatch_action is not None]
    return (await connection.execute(statement, parameters)).first() is not None


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value
