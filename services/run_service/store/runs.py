"""Read and write runs; no query changes a run that has ended, but for what it owes outside systems."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID, insert

from run_service.domain.statuses import ACTIVE, RunStatus
from run_service.store.records import Record, record_of
from run_service.store.tables import extensions, flows, runs
from servicekit.database import Connection, Database
from servicekit.direct import as_text
from servicekit.locations import in_projects
from servicekit.moved_roots import roots_of


def _readable(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """Return a column of ids as text, and any other column as it is."""
    if isinstance(column.type, sa.Uuid):
        return sa.cast(column, sa.Text).label(column.name)
    if isinstance(column.type, sa.ARRAY):
        return sa.cast(column, sa.ARRAY(sa.Text)).label(column.name)
    return column


# A CASE evaluates only the branch it takes: one look into one extension table per run.
_RESULT = sa.case(
    {
        sa.literal_column(f"'{kind}'"): sa.select(sa.func.to_jsonb(sa.literal_column(table.name)))
        .select_from(table)
        .where(table.c.tenant_id == runs.c.tenant_id, table.c.run_id == runs.c.run_id)
        .correlate(runs)
        .scalar_subquery()
        for kind, table in extensions.items()
    },
    value=runs.c.kind,
    else_=sa.cast(sa.null(), JSONB),
).label("result")
_DERIVED = (_RESULT, roots_of(runs.c.tenant_id).label("moved_roots"))
_SELECT = sa.select(runs, *_DERIVED)
# The same for texts, whose values nobody converts: ids are text.
COLUMNS = (*(_readable(column) for column in runs.c), *_DERIVED)
_LOCK = as_text(
    sa.select(*COLUMNS)
    .where(runs.c.tenant_id == sa.bindparam("tenant_id"), runs.c.run_id == sa.bindparam("run_id"))
    .with_for_update(of=runs)
)
_OF_FLOW = """
    select run_id, run_number, status, coalesce(output_version ->> 'digest', '') as digest,
        coalesce(output_version ->> 'readers_hash', '') as readers_hash, compute_fingerprint, instance_revision,
        is_partial_range and not covers_changes as is_partial_range,
        coalesce(output_version ->> 'former_digest', '') as former_digest,
        coalesce(output_version ->> 'code_hash', '') as code_hash
    from runs
    where tenant_id = :tenant_id and instance_id = listed.instance_id and flow_kind = listed.flow_kind and run_number > 0
"""
_NEWEST = "order by run_number desc limit 1"
_LIST_NEWEST = sa.text(f"""
    select cast(listed.instance_id as text), listed.flow_kind, cast(run_id as text), run_number, status, digest,
        readers_hash, compute_fingerprint, instance_revision, is_partial_range, former_digest,
        code_hash
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as listed (instance_id, flow_kind)
    cross join lateral (({_OF_FLOW} {_NEWEST}) union ({_OF_FLOW} and status = 'completed' {_NEWEST})) as newest
""")  # noqa: S608 - constants
_ACTIVE_WORDS = sorted(status.value for status in ACTIVE)  # psycopg would send an enum's name


@dataclass(frozen=True)
class NewestRun:
    """A newest run of a flow, as far as admission compares it with the answer of lineage-service."""

    instance_id: str
    flow_kind: str
    run_id: str
    run_number: int
    status: RunStatus
    digest: str  # of its output; empty where it has none
    readers_hash: str  # how its output is read; empty if it is not recorded
    compute_fingerprint: str
    instance_revision: int
    is_partial_range: bool  # and does not cover its changes
    former_digest: str  # its digest by an earlier release; empty where its base has none of that release
    code_hash: str  # of the code that computed its output; empty if it is not known


async def _records(connection: Connection, statement: sa.Executable) -> list[Record]:
    return [record_of(row) for row in (await connection.execute(statement)).mappings()]


async def _record(connection: Connection, statement: sa.Executable) -> Record | None:
    row = (await connection.execute(statement)).mappings().one_or_none()
    return None if row is None else record_of(row)


async def get_run(connection: Connection, tenant_id: str, run_id: str) -> Record | None:
    """Return a run."""
    return await _record(connection, _SELECT.where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id))


async def lock_run(connection: Connection, tenant_id: str, run_id: str) -> Record | None:
    """Lock a run until the end of the transaction, and return it."""
    row = (
        (await connection.execute(_LOCK, {"tenant_id": tenant_id, "run_id": run_id})).mappings().one_or_none()
    )
    return None if row is None else record_of(row)


async def lock_runs(connection: Connection, tenant_id: str, run_ids: Collection[str]) -> None:
    """Lock runs until the end of the transaction, always in the same order."""
    statement = sa.select(runs.c.run_id).where(runs.c.tenant_id == tenant_id, runs.c.run_id.in_(run_ids))
    await connection.execute(statement.order_by(runs.c.run_id).with_for_update())


async def list_runs_by_id(connection: Connection, tenant_id: str, run_ids: Collection[str]) -> list[Record]:
    """Return those of the runs that exist, in no order."""
    return await _records(
        connection, _SELECT.where(runs.c.tenant_id == tenant_id, runs.c.run_id.in_(run_ids))
    )


async def list_run_revisions(
    connection: Connection, tenant_id: str, run_ids: Collection[str]
) -> Sequence[tuple[str, int]]:
    """Return the id and the revision of those of the runs that exist."""
    statement = sa.select(runs.c.run_id, runs.c.revision).where(
        runs.c.tenant_id == tenant_id, runs.c.run_id.in_(run_ids)
    )
    return [(row.run_id, row.revision) for row in await connection.execute(statement)]


async def get_active_run(
    connection: Connection, tenant_id: str, instance_id: str, flow_kind: str
) -> Record | None:
    """Return the flow's pending or running run."""
    return await _record(
        connection,
        _SELECT.where(
            runs.c.tenant_id == tenant_id,
            runs.c.instance_id == instance_id,
            runs.c.flow_kind == flow_kind,
            runs.c.status.in_(_ACTIVE_WORDS),
        ),
    )


async def list_active_run_ids(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> list[str]:
    """Return the ids of the active runs of instances."""
    statement = sa.select(runs.c.run_id).where(
        runs.c.tenant_id == tenant_id,
        runs.c.instance_id.in_(instance_ids),
        runs.c.status.in_(_ACTIVE_WORDS),
    )
    return list((await connection.execute(statement)).scalars())


async def get_adopted_run(connection: Connection, tenant_id: str, orchestrator_run_id: str) -> Record | None:
    """Return the run that is paired with a flow run."""
    return await _record(
        connection,
        _SELECT.where(runs.c.tenant_id == tenant_id, runs.c.orchestrator_run_id == orchestrator_run_id),
    )


async def list_runs_of_flow_runs(
    connection: Connection, tenant_id: str, orchestrator_run_ids: Collection[str]
) -> list[Record]:
    """Return the runs that are paired with one of the flow runs, in no order."""
    return await _records(
        connection,
        _SELECT.where(runs.c.tenant_id == tenant_id, runs.c.orchestrator_run_id.in_(orchestrator_run_ids)),
    )


async def get_run_of_tick(
    connection: Connection, tenant_id: str, instance_id: str, flow_kind: str, scheduled_time: datetime
) -> Record | None:
    """Return the run of a scheduled time of the flow."""
    return await _record(
        connection,
        _SELECT.where(
            runs.c.tenant_id == tenant_id,
            runs.c.instance_id == instance_id,
            runs.c.flow_kind == flow_kind,
            runs.c.scheduled_time == scheduled_time,
        ),
    )


async def list_newest_runs(
    database: Database, tenant_id: str, wanted: Sequence[tuple[str, str]]
) -> list[NewestRun]:
    """Return the newest run and the newest completed run of each flow (instance id, flow kind)."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": [instance_id for instance_id, _ in wanted],
        "flow_kinds": [flow_kind for _, flow_kind in wanted],
    }
    return [
        NewestRun(instance_id, flow_kind, run_id, run_number, RunStatus(status), *rest)
        for instance_id, flow_kind, run_id, run_number, status, *rest in await database.fetch(
            tenant_id, _LIST_NEWEST, parameters
        )
    ]


async def list_runs(
    connection: Connection,
    tenant_id: str,
    *,
    instance_ids: Collection[str],
    flow_kind: str,
    statuses: Collection[str],
    before_run_id: str,
    limit: int,
    only: Collection[str] | None = None,
) -> list[Record]:
    """Return a page of runs, newest first; an empty filter selects everything.

    With `only`, runs of other projects than these are left out.
    """
    statement = _SELECT.where(runs.c.tenant_id == tenant_id).order_by(runs.c.run_id.desc()).limit(limit)
    if instance_ids:
        statement = statement.where(runs.c.instance_id.in_(instance_ids))
    if flow_kind:
        statement = statement.where(runs.c.flow_kind == flow_kind)
    if statuses:
        statement = statement.where(runs.c.status.in_(statuses))
    if before_run_id:
        statement = statement.where(runs.c.run_id < before_run_id)
    if only is not None:
        statement = statement.where(in_projects(runs.c.instance_id, tenant_id, only))
    return await _records(connection, statement)


async def update_progress(
    connection: Connection,
    tenant_id: str,
    run_id: str,
    *,
    progress_pct: float | None,
    progress_message: str,
    event_time: datetime | None,
) -> Record | None:
    """Raise the progress of a running run; return None if nothing changed."""
    values: dict[str, Any] = {"revision": runs.c.revision + 1}
    changes = []
    if progress_pct is not None:
        values["progress_pct"] = sa.func.greatest(runs.c.progress_pct, progress_pct)
        changes.append(runs.c.progress_pct < progress_pct)
    if progress_message:
        values["progress_message"] = progress_message
        changes.append(runs.c.progress_message != progress_message)
    if event_time is not None:
        values["progress_event_time"] = event_time
    statement = (
        sa.update(runs)
        .where(
            runs.c.tenant_id == tenant_id,
            runs.c.run_id == run_id,
            runs.c.status == RunStatus.RUNNING.value,
            sa.or_(*changes),
        )
        .values(values)
        .returning(*runs.c, *_DERIVED)
    )
    return await _record(connection, statement)


async def update_code(
    connection: Connection, tenant_id: str, run_id: str, code: Sequence[Mapping[str, Any]]
) -> Record | None:
    """Store the code that a running run executes."""
    return await _record(
        connection,
        sa.update(runs)
        .where(
            runs.c.tenant_id == tenant_id,
            runs.c.run_id == run_id,
            runs.c.status == RunStatus.RUNNING.value,
        )
        .values(code=list(code), revision=runs.c.revision + 1)
        .returning(*runs.c, *_DERIVED),
    )


async def set_orchestrator_run(
    connection: Connection, tenant_id: str, run_id: str, orchestrator_run_id: str
) -> None:
    """Pair a pending run with a flow run, unless it has one, or has lost this one before."""
    await connection.execute(
        sa.update(runs)
        .where(
            runs.c.tenant_id == tenant_id,
            runs.c.run_id == run_id,
            runs.c.status == RunStatus.PENDING.value,
            runs.c.orchestrator_run_id.is_(None),
            sa.cast(orchestrator_run_id, UUID(as_uuid=False)) != sa.all_(runs.c.superseded_run_ids),
        )
        .values(orchestrator_run_id=orchestrator_run_id, revision=runs.c.revision + 1)
    )


def _has_pair(pairs: Mapping[str, str]) -> sa.ColumnElement[bool]:
    return sa.tuple_(runs.c.run_id, runs.c.orchestrator_run_id).in_(list(pairs.items()))


async def part_from_flow_runs(
    connection: Connection, tenant_id: str, pairs: Mapping[str, str]
) -> list[Record]:
    """Detach pending runs from their flow runs, whose later reports are refused; return these runs.

    A run that no longer has the flow run that `pairs` (run id -> flow-run id) names stays as it is.
    """
    statement = (
        sa.update(runs)
        .where(
            runs.c.tenant_id == tenant_id,
            _has_pair(pairs),
            runs.c.status == RunStatus.PENDING.value,
        )
        .values(
            superseded_run_ids=sa.func.array_append(runs.c.superseded_run_ids, runs.c.orchestrator_run_id),
            orchestrator_run_id=None,
            revision=runs.c.revision + 1,
        )
        .returning(*runs.c, *_DERIVED)
    )
    return await _records(connection, statement)


async def settle_telemetry(connection: Connection, tenant_id: str, run_id: str, system: str) -> Record:
    """Take a system out of what a locked run owes, and return the run."""
    statement = (
        sa.update(runs)
        .where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id)
        .values(
            telemetry_pending=sa.func.array_remove(runs.c.telemetry_pending, system),
            revision=runs.c.revision + 1,
        )
        .returning(*runs.c, *_DERIVED)
    )
    (settled,) = await _records(connection, statement)
    return settled


async def mark_flows_deleted(
    connection: Connection, tenant_id: str, listed: Collection[tuple[str, str]]
) -> None:
    """Refuse further runs of flows (instance id, flow kind); wait for submissions that are under way."""
    rows = [
        {"tenant_id": tenant_id, "instance_id": instance_id, "flow_kind": flow_kind, "is_deleted": True}
        for instance_id, flow_kind in sorted(listed)
    ]
    statement = insert(flows).values(rows)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[flows.c.tenant_id, flows.c.instance_id, flows.c.flow_kind],
            set_={"is_deleted": True},
        )
    )
