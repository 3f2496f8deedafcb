"""Insert a new run, its number and all rows that belong to it in one statement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa

from optaic.run.v1 import run_pb2
from run_service.domain.retries import RetryPolicy
from run_service.store.records import retry_policy_json, run_columns
from run_service.store.tables import activities, dispatches, extensions, flows, runs
from servicekit import changes, schema
from servicekit.database import Connection, Database
from servicekit.enums import enum_word
from servicekit.events import Event
from servicekit.outbox import note, outbox_row

LATER_COLUMNS = {
    "revision",
    "fencing_token",
    "start_secret_hash",
    "executor",
    "progress_event_time",
    "last_log_time",
    "superseded_run_ids",
}
# At the most `most`, so that a tenant with many runs costs no more.
_COUNT_ACTIVE = sa.text("""
    select count(*) from (
        select from runs where tenant_id = :tenant_id and status in ('pending', 'running') limit :most
    ) as active
""")
DISPATCH_COLUMNS = (
    "tenant_id, run_id, action, instance_id, flow_kind, name, orchestrator_run_id, submit_time, due_time"
)


def names_of(table: sa.Table, without: set[str]) -> str:
    """Return the names of a table's columns, without some, for a statement."""
    return ", ".join(column.name for column in table.c if column.name not in without)


def insert_part(table: sa.Table, columns: str, key: str) -> str:
    """Return the SQL that inserts part `key` of the document; jsonb_populate_record types each column."""
    return (
        f"insert into {table.name} ({columns}) select {columns} "  # noqa: S608 - names of our own tables
        rf"from given, jsonb_populate_record(null\:\:{table.name}, document -> '{key}')"
    )


def _insert_extension(kind: str) -> str:
    """Return the SQL that inserts the result of a new run: none, but for a version that another system reported."""
    if kind == "pipeline":
        return (
            "insert into pipeline_runs (tenant_id, run_id, last_data_date) "
            "select tenant_id, run_id, document -> 'run' -> 'output_version' ->> 'last_data_date' from given, inserted"
        )
    return f"insert into {extensions[kind].name} (tenant_id, run_id) select tenant_id, run_id from inserted"  # noqa: S608 - names of our own tables


def _statement(kind: str) -> sa.TextClause:
    """Return the SQL that inserts a run of a kind: one data-modifying CTE, so that all of it is inserted or nothing.

    The flow's counter moves by one from the number that the admission knew, or not at all. Its row stays locked until
    the commit, so that submissions of one flow come one after the other. The values are one document instead of seventy
    parameters, because the driver caches no statement of more than fifty.
    """
    event = names_of(schema.outbox, {"id", "payload"})
    return sa.text(rf"""
        with given as materialized (select cast(:document as jsonb) as document), counter as (
            insert into flows (tenant_id, instance_id, flow_kind, last_run_number)
            select :tenant_id, cast(:instance_id as uuid), :flow_kind, :run_number
            where :run_number > 0 and not exists (
                select from runs where tenant_id = :tenant_id and instance_id = cast(:instance_id as uuid)
                and flow_kind = :flow_kind and status in ('pending', 'running'))
            on conflict (tenant_id, instance_id, flow_kind) do update set last_run_number = excluded.last_run_number
            where not flows.is_deleted and flows.last_run_number = excluded.last_run_number - 1
            returning last_run_number
        ), inserted as (
            {insert_part(runs, names_of(runs, LATER_COLUMNS), "run")}
            where :run_number = 0 or exists (select from counter)
            on conflict do nothing returning tenant_id, run_id, retry_of_run_id
        ), extension as (
            {_insert_extension(kind)}
        ), activity as (
            {insert_part(activities, names_of(activities, set()), "activity")} where exists (select from inserted)
        ), event as (
            insert into outbox ({event}, payload) select {event}, cast(:payload as bytea)
            from given, jsonb_populate_record(null\:\:outbox, document -> 'event')
            where exists (select from inserted)
        ), dispatch as (
            {insert_part(dispatches, DISPATCH_COLUMNS, "dispatch")}
            where exists (select from inserted) and document ? 'dispatch'
        ), replaced as (
            delete from retries using inserted
            where retries.tenant_id = inserted.tenant_id and retries.run_id = inserted.retry_of_run_id
        ), reply as (
            insert into request_replies (tenant_id, method, request_id, payload_hash, response, write_tokens)
            select tenant_id, :method, :request_id, cast(:payload_hash as bytea), cast(:response as bytea),
                array[:write_token]
            from inserted where :request_id <> ''
        ), audit as (
            insert into audit_records ({schema.AUDIT_COLUMNS}) select {schema.AUDIT_COLUMNS}
            from given, jsonb_populate_record(null\:\:audit_records, document -> 'audit')
            where exists (select from inserted) and document ? 'audit'
        )
        select 1 from inserted
    """)  # noqa: S608 - names of our own tables


_STATEMENTS = {kind: _statement(kind) for kind in extensions}


@dataclass(frozen=True)
class Submission:
    """A new run with all rows that are inserted with it."""

    run: run_pb2.Run
    instance_name: str
    retry_policy: RetryPolicy | None
    event: Event
    activity: Mapping[str, Any]
    # create: make a flow run; observe: it exists already; None: there is nothing to execute.
    dispatch_action: str | None
    submit_time: datetime
    # The request that this run answers; without a request id nothing is remembered.
    method: str = ""
    request_id: str = ""
    payload_hash: bytes = b""


async def count_active(connection: Connection, tenant_id: str, most: int) -> int:
    """Return the number of pending and running runs of a tenant, at the most `most`."""
    rows = await connection.execute(_COUNT_ACTIVE, {"tenant_id": tenant_id, "most": most})
    return int(rows.scalar_one())


async def fetch_active_count(database: Database, tenant_id: str, most: int) -> int:
    """Return the same as `count_active`, in one round trip."""
    rows = await database.fetch(tenant_id, _COUNT_ACTIVE, {"tenant_id": tenant_id, "most": most})
    return int(rows[0][0])


async def insert_submission(connection: Connection, tenant_id: str, submission: Submission) -> bool:
    """Insert a run; return False if its number is taken or the flow takes no run now."""
    parameters = _parameters(tenant_id, submission)
    is_inserted = (await connection.execute(_statement_of(submission), parameters)).first() is not None
    if is_inserted:
        note([submission.event])
    else:
        changes.discard()
    return is_inserted


async def write_submission(database: Database, tenant_id: str, submission: Submission) -> bool:
    """Insert a run as `insert_submission` does, in a transaction of its own and in one round trip.

    Return False also if the request id was answered before.
    """
    try:
        return bool(
            await database.write(
                tenant_id,
                _statement_of(submission),
                _parameters(tenant_id, submission),
                [submission.event],
            )
        )
    except psycopg.errors.UniqueViolation:
        return False


def _statement_of(submission: Submission) -> sa.TextClause:
    return _STATEMENTS[enum_word(run_pb2.RunKind, submission.run.kind)]


def run_document(tenant_id: str, submission: Submission) -> dict[str, Any]:
    """Return the rows of a new run, by the names that the statements give them; without those of its event and its audit."""
    policy = submission.retry_policy
    run = {
        **run_columns(submission.run),
        "tenant_id": tenant_id,
        "instance_name": submission.instance_name,
        "last_event_id": submission.event.event_id,
        "retry_policy": retry_policy_json(policy) if policy else None,
    }
    document: dict[str, Any] = {"run": run, "activity": submission.activity}
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
    return document


def audit_document(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the audit trail as a part of a document."""
    return {**row, "content": f"\\x{row['content'].hex()}"}


def _parameters(tenant_id: str, submission: Submission) -> dict[str, Any]:
    event = outbox_row(submission.event)
    payload = event.pop("payload")
    document = {**run_document(tenant_id, submission), "event": event}
    if (record := changes.take_row()) is not None:
        document["audit"] = audit_document(record)
    run = document["run"]
    return {
        "document": json.dumps(document, default=datetime.isoformat),
        "tenant_id": tenant_id,
        "instance_id": run["instance_id"],
        "flow_kind": run["flow_kind"],
        "run_number": submission.run.run_number,
        "payload": payload,
        "method": submission.method,
        "request_id": submission.request_id,
        "payload_hash": submission.payload_hash,
        "response": submission.run.SerializeToString() if submission.request_id else b"",
        "write_token": submission.event.token,
    }


async def is_flow_deleted(connection: Connection, tenant_id: str, instance_id: str, flow_kind: str) -> bool:
    """Return whether the flow takes no more runs, because its instance is deleted."""
    statement = sa.select(flows.c.is_deleted).where(
        flows.c.tenant_id == tenant_id, flows.c.instance_id == instance_id, flows.c.flow_kind == flow_kind
    )
    return bool((await connection.execute(statement)).scalar())
