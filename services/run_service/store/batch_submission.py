"""Insert many new runs, with their numbers and all rows that belong to them, in one statement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from run_service.store.submission import (
    DISPATCH_COLUMNS,
    LATER_COLUMNS,
    Submission,
    audit_document,
    insert_part,
    names_of,
    run_document,
)
from run_service.store.tables import activities, dispatches, extensions, runs
from servicekit import changes, schema
from servicekit.database import Connection
from servicekit.outbox import note, outbox_row

_OF_INSERTED = "where document -> 'run' ->> 'run_id' in (select cast(run_id as text) from inserted)"
# As the statement for one run does: the counter of a flow moves by one from the number that the admission knew, or not at
# all. Its row stays locked until the commit. The counters are locked in one order, so that no two batches wait for each other.
_INSERT = sa.text(rf"""
    with given as materialized (
        select document from jsonb_array_elements(cast(:documents as jsonb)) as each (document)
    ), counter as (
        insert into flows (tenant_id, instance_id, flow_kind, last_run_number)
        select wanted.tenant_id, wanted.instance_id, wanted.flow_kind, wanted.run_number
        from given, jsonb_populate_record(null\:\:runs, document -> 'run') as wanted
        where not exists (
            select from runs where runs.tenant_id = wanted.tenant_id and runs.instance_id = wanted.instance_id
            and runs.flow_kind = wanted.flow_kind and runs.status in ('pending', 'running')
            offset 0) -- so that each is looked up in the index, instead of a join with all active runs
        order by wanted.instance_id, wanted.flow_kind
        on conflict (tenant_id, instance_id, flow_kind) do update set last_run_number = excluded.last_run_number
        where not flows.is_deleted and flows.last_run_number = excluded.last_run_number - 1
        returning instance_id, flow_kind
    ), inserted as (
        {insert_part(runs, names_of(runs, LATER_COLUMNS), "run")}
        where (instance_id, flow_kind) in (select instance_id, flow_kind from counter)
        on conflict do nothing returning tenant_id, run_id, kind
    ), {
    ", ".join(
        f'''{table.name}_added as (
        insert into {table.name} (tenant_id, run_id) select tenant_id, run_id from inserted where kind = '{kind}'
    )'''
        for kind, table in extensions.items()
    )
}, activity as (
        {insert_part(activities, names_of(activities, set()), "activity")} {_OF_INSERTED}
    ), event as (
        {insert_part(schema.outbox, names_of(schema.outbox, {"id"}), "event")} {_OF_INSERTED}
    ), dispatch as (
        {insert_part(dispatches, DISPATCH_COLUMNS, "dispatch")} {_OF_INSERTED}
    ), audit as (
        {insert_part(schema.audit_records, schema.AUDIT_COLUMNS, "audit")} {
    _OF_INSERTED
} and document ? 'audit'
    )
    select cast(run_id as text) from inserted
""")  # noqa: S608 - names of our own tables
_LIST_HINDRANCES = sa.text("""
    select cast(listed.instance_id as text), listed.flow_kind, coalesce(flows.is_deleted, false),
        coalesce(cast(active.run_id as text), ''), coalesce(active.run_number, 0)
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as listed (instance_id, flow_kind)
    left join flows on flows.tenant_id = :tenant_id and flows.instance_id = listed.instance_id
        and flows.flow_kind = listed.flow_kind
    left join runs as active on active.tenant_id = :tenant_id and active.instance_id = listed.instance_id
        and active.flow_kind = listed.flow_kind and active.status in ('pending', 'running')
""")


class Hindrance(NamedTuple):
    """The facts for which a flow takes no run: it is deleted, or has this active run."""

    is_deleted: bool
    run_id: str
    run_number: int


async def insert_submissions(
    connection: Connection, tenant_id: str, submissions: Sequence[Submission]
) -> set[str]:
    """Insert runs of different flows; return the ids of those whose number was free and whose flow takes a run now."""
    audits = changes.take_rows(
        [(f"runs/{each.run.run_id}", 1, each.run.force_reason) for each in submissions]
    )
    documents = [_document(tenant_id, each) for each in submissions]
    for document, audit in zip(documents, audits, strict=False):  # none outside of an audited call
        document["audit"] = audit_document(audit)
    parameters = {"documents": json.dumps(documents, default=datetime.isoformat)}
    inserted = set((await connection.execute(_INSERT, parameters)).scalars())
    note([each.event for each in submissions if each.run.run_id in inserted])
    if not inserted:
        changes.discard()
    return inserted


def _document(tenant_id: str, submission: Submission) -> dict[str, Any]:
    event = outbox_row(submission.event)
    event["payload"] = f"\\x{submission.event.payload.hex()}"
    return {**run_document(tenant_id, submission), "event": event}


async def list_hindrances(
    connection: Connection, tenant_id: str, flows: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Hindrance]:
    """Return the facts for which the flows (instance id, flow kind) may take no run."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": [instance_id for instance_id, _ in flows],
        "flow_kinds": [flow_kind for _, flow_kind in flows],
    }
    rows = await connection.execute(_LIST_HINDRANCES, parameters)
    return {(instance_id, flow_kind): Hindrance(*rest) for instance_id, flow_kind, *rest in rows}
