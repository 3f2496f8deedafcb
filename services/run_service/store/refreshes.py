"""Read and write refreshes and their flows."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from optaic.run.v1 import refresh_pb2
from run_service.domain.refreshing import Entry, FlowKey, Progress, RunState
from run_service.domain.statuses import RunStatus
from run_service.store.refresh_records import (
    StoredRefresh,
    entry_of,
    entry_row,
    flow_message,
    refresh_of,
    refresh_row,
)
from run_service.store.refresh_tables import refresh_flows, refreshes
from servicekit import off_loop
from servicekit.database import Connection
from servicekit.schema import UUID_TEXT
from servicekit.turns import MOST, NOW, UNTIL, in_turns

RefreshKey = tuple[str, str]  # tenant id, refresh id
_KEY = ("tenant_id", "refresh_id")
_DUE = in_turns(
    refreshes,
    lambda columns: columns.due_time <= NOW,
    key=_KEY,
    order="due_time",
    limit=MOST,
    queued=lambda columns: columns.due_time.is_not(None),
    lock=True,
).cte("due")
_CLAIM = (
    sa.update(refreshes)
    .where(*(refreshes.c[name] == _DUE.c[name] for name in _KEY))
    .values(due_time=UNTIL)
    .returning(refreshes.c.tenant_id, refreshes.c.refresh_id)
)
_ENTRY = """
    instance_id, flow_kind, instance_name, status, skip_reason, reason, run_id, run_number, is_joined, level, is_target,
    attempt, is_refused
"""
_WRITE_FLOWS = sa.text(rf"""
    insert into refresh_flows (tenant_id, refresh_id, revision, {_ENTRY})
    select :tenant_id, cast(:refresh_id as uuid), :revision, {_ENTRY}
    from jsonb_populate_recordset(null\:\:refresh_flows, cast(:entries as jsonb))
    on conflict (tenant_id, refresh_id, instance_id, flow_kind) do update set
        instance_name = excluded.instance_name, status = excluded.status, skip_reason = excluded.skip_reason,
        reason = excluded.reason, run_id = excluded.run_id, run_number = excluded.run_number,
        is_joined = excluded.is_joined, level = excluded.level, is_target = excluded.is_target,
        attempt = excluded.attempt, is_refused = excluded.is_refused, revision = excluded.revision
""")  # noqa: S608 - constants of ours
_BYTES_OF_A_FLOW = 200  # about
_COUNT = sa.text("""
    select cast(refresh_id as text), status, count(*) from refresh_flows
    where tenant_id = :tenant_id and refresh_id = any(cast(:refresh_ids as uuid[])) group by refresh_id, status
""")
_COUNT_RUNNING = sa.text("""
    select count(*) from (
        select from refreshes where tenant_id = :tenant_id and due_time is not null limit :most
    ) as running
""")
# The retry that follows a failed run has the next number of the flow.
_LIST_RUNS = sa.text("""
    select cast(r.run_id as text), r.status, r.run_number, coalesce(r.error ->> 'type', ''),
        coalesce(r.error ->> 'message', ''),
        exists (select from retries q where q.tenant_id = r.tenant_id and q.run_id = r.run_id),
        (select cast(n.run_id as text) from runs n
         where n.tenant_id = r.tenant_id and n.instance_id = r.instance_id and n.flow_kind = r.flow_kind
           and n.run_number = r.run_number + 1 and n.retry_of_run_id = r.run_id and n.trigger = 'retry')
    from runs r where r.tenant_id = :tenant_id and r.run_id = any(cast(:run_ids as uuid[]))
""")
_LIST_ACTIVE_RUNS = sa.text("""
    select cast(r.run_id as text) from refresh_flows f
    join runs r on r.tenant_id = f.tenant_id and r.instance_id = f.instance_id and r.flow_kind = f.flow_kind
        and r.status in ('pending', 'running') and r.refresh_id = f.refresh_id
    where f.tenant_id = :tenant_id and f.refresh_id = cast(:refresh_id as uuid)
""")
_WAKE = sa.text("""
    update refreshes set due_time = :now
    where tenant_id = :tenant_id and due_time > :now and refresh_id in (
        select refresh_id from refresh_flows
        where tenant_id = :tenant_id and instance_id = any(cast(:instance_ids as uuid[]))
          and status in ('waiting', 'running'))
    returning 1
""")
_PURGE = sa.text("""
    with old as (
        select tenant_id, refresh_id from refreshes where end_time < :before order by end_time limit :most
    ), flows as (
        delete from refresh_flows using old
        where refresh_flows.tenant_id = old.tenant_id and refresh_flows.refresh_id = old.refresh_id
    )
    delete from refreshes using old
    where refreshes.tenant_id = old.tenant_id and refreshes.refresh_id = old.refresh_id
""")


async def insert_refresh(connection: Connection, tenant_id: str, refresh: StoredRefresh) -> None:
    """Insert a running refresh, due at once."""
    await connection.execute(sa.insert(refreshes).values(refresh_row(tenant_id, refresh)))


def _visible(tenant_id: str, only: Collection[str] | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the refreshes that a caller with roles in some projects may see; None: all."""
    conditions: list[sa.ColumnElement[bool]] = [refreshes.c.tenant_id == tenant_id]
    if only is not None:
        conditions.append(refreshes.c.project_ids.contained_by(sorted(only)))
    return conditions


async def get_refresh(
    connection: Connection,
    tenant_id: str,
    refresh_id: str,
    *,
    only: Collection[str] | None = None,
    lock: bool = False,
) -> StoredRefresh | None:
    """Return a refresh; with `only`, one that is confined to some of these projects; with `lock`, lock it."""
    statement = sa.select(refreshes).where(*_visible(tenant_id, only), refreshes.c.refresh_id == refresh_id)
    if lock:
        statement = statement.with_for_update()
    row = (await connection.execute(statement)).mappings().one_or_none()
    return None if row is None else refresh_of(row)


async def list_refreshes(
    connection: Connection,
    tenant_id: str,
    *,
    statuses: Collection[str],
    before: str,
    limit: int,
    only: Collection[str] | None,
) -> list[StoredRefresh]:
    """Return a page of refreshes, newest first."""
    statement = sa.select(refreshes).where(*_visible(tenant_id, only))
    if statuses:
        statement = statement.where(refreshes.c.status.in_(sorted(statuses)))
    if before:
        statement = statement.where(refreshes.c.refresh_id < before)
    statement = statement.order_by(refreshes.c.refresh_id.desc()).limit(limit)
    return [refresh_of(row) for row in (await connection.execute(statement)).mappings()]


async def count_flows(
    connection: Connection, tenant_id: str, refresh_ids: Iterable[str]
) -> dict[str, dict[Progress, int]]:
    """Return how many flows of each refresh have each status."""
    found: dict[str, dict[Progress, int]] = {refresh_id: {} for refresh_id in refresh_ids}
    rows = await connection.execute(_COUNT, {"tenant_id": tenant_id, "refresh_ids": list(found)})
    for refresh_id, status, count in rows:
        found[refresh_id][Progress(status)] = count
    return found


async def count_running(connection: Connection, tenant_id: str, most: int) -> int:
    """Return the number of running refreshes of a tenant, at the most `most`."""
    return int(
        (await connection.execute(_COUNT_RUNNING, {"tenant_id": tenant_id, "most": most})).scalar_one()
    )


async def list_flows(
    connection: Connection, tenant_id: str, refresh_id: str, *, only: FlowKey | None = None
) -> dict[FlowKey, Entry]:
    """Return all flows of a refresh, or only one of them."""
    statement = sa.select(refresh_flows).where(
        refresh_flows.c.tenant_id == tenant_id, refresh_flows.c.refresh_id == refresh_id
    )
    if only is not None:
        statement = statement.where(
            refresh_flows.c.instance_id == only.instance_id, refresh_flows.c.flow_kind == only.flow_kind
        )
    rows = (await connection.execute(statement)).mappings().all()

    def entries() -> dict[FlowKey, Entry]:
        return {FlowKey(row["instance_id"], row["flow_kind"]): entry_of(row) for row in rows}

    return await off_loop.run_if_large(len(rows) * _BYTES_OF_A_FLOW, entries)


async def list_changed_flows(
    connection: Connection, tenant_id: str, refresh_id: str, after_revision: int
) -> list[refresh_pb2.RefreshFlow]:
    """Return the flows of a refresh that changed after one of its revisions, level by level."""
    statement = sa.select(refresh_flows).where(
        refresh_flows.c.tenant_id == tenant_id,
        refresh_flows.c.refresh_id == refresh_id,
        refresh_flows.c.revision > after_revision,
    )
    return await _messages(connection, statement.order_by(*_ORDER))


_ORDER = (refresh_flows.c.level, refresh_flows.c.instance_id, refresh_flows.c.flow_kind)


async def list_flow_messages(
    connection: Connection,
    tenant_id: str,
    refresh_id: str,
    *,
    after: tuple[int, str, str] | None,
    limit: int,
) -> list[refresh_pb2.RefreshFlow]:
    """Return a page of the flows of a refresh, level by level."""
    statement = sa.select(refresh_flows).where(
        refresh_flows.c.tenant_id == tenant_id, refresh_flows.c.refresh_id == refresh_id
    )
    if after is not None:
        level, instance_id, flow_kind = after
        position = sa.tuple_(sa.literal(level), sa.literal(instance_id, UUID_TEXT), sa.literal(flow_kind))
        statement = statement.where(sa.tuple_(*_ORDER) > position)
    return await _messages(connection, statement.order_by(*_ORDER).limit(limit))


async def _messages(connection: Connection, statement: sa.Select[Any]) -> list[refresh_pb2.RefreshFlow]:
    return [
        flow_message(FlowKey(row["instance_id"], row["flow_kind"]), entry_of(row), row["revision"])
        for row in (await connection.execute(statement)).mappings()
    ]


async def write_flows(
    connection: Connection, tenant_id: str, refresh_id: str, entries: Mapping[FlowKey, Entry], revision: int
) -> None:
    """Insert or replace flows of a refresh."""

    def rows() -> str:
        return json.dumps([entry_row(key, entry) for key, entry in entries.items()])

    text = await off_loop.run_if_large(len(entries) * _BYTES_OF_A_FLOW, rows)
    parameters = {"tenant_id": tenant_id, "refresh_id": refresh_id, "revision": revision}
    await connection.execute(_WRITE_FLOWS, {**parameters, "entries": text})


async def update_refresh(
    connection: Connection, tenant_id: str, refresh: StoredRefresh, values: Mapping[str, Any]
) -> bool:
    """Change a refresh that is still at the revision of `refresh`; return whether it was."""
    statement = (
        sa.update(refreshes)
        .where(
            refreshes.c.tenant_id == tenant_id,
            refreshes.c.refresh_id == refresh.refresh_id,
            refreshes.c.revision == refresh.revision,
        )
        .values(revision=refresh.revision + 1, **values)
        .returning(sa.literal(1))
    )
    return (await connection.execute(statement)).first() is not None


async def list_run_states(
    connection: Connection, tenant_id: str, run_ids: Collection[str]
) -> dict[str, RunState]:
    """Return the states of runs by id; those that do not exist are absent."""
    rows = await connection.execute(_LIST_RUNS, {"tenant_id": tenant_id, "run_ids": list(run_ids)})
    return {
        run_id: RunState(
            RunStatus(status),
            number,
            f"{kind}: {message}" if message else kind,
            will_retry,
            next_run_id or "",
        )
        for run_id, status, number, kind, message, will_retry, next_run_id in rows
    }


async def list_active_runs(connection: Connection, tenant_id: str, refresh_id: str) -> Sequence[str]:
    """Return the ids of the active runs that a refresh has submitted."""
    rows = await connection.execute(_LIST_ACTIVE_RUNS, {"tenant_id": tenant_id, "refresh_id": refresh_id})
    return [row[0] for row in rows]


async def claim_refreshes(
    connection: Connection, now: datetime, claim_expire_time: datetime, limit: int
) -> list[RefreshKey]:
    """Claim due refreshes, on the infra login; they are due again when the claim expires, or when they are woken."""
    given = {"now": now, "until": claim_expire_time, "most": limit}
    return [(row[0], str(row[1])) for row in await connection.execute(_CLAIM, given)]


async def wake_refreshes(
    connection: Connection, tenant_id: str, instance_ids: Collection[str], now: datetime
) -> bool:
    """Have running refreshes looked at now that have unsettled flows of the instances; return whether there are any."""
    parameters = {"tenant_id": tenant_id, "instance_ids": sorted(instance_ids), "now": now}
    return (await connection.execute(_WAKE, parameters)).first() is not None


async def delete_ended(connection: Connection, before: datetime, most: int) -> int:
    """Delete refreshes that ended before a moment, on the infra login; return how many."""
    return (await connection.execute(_PURGE, {"before": before, "most": most})).rowcount
