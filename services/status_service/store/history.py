"""The queries of the history of statuses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from servicekit.database import Connection
from status_service.domain.history import Window
from status_service.store.statements import insert, insert_of, select_of
from status_service.store.tables import status_history

_INSERT_TRANSITIONS = insert_of(status_history, is_upsert=False)
_DURATIONS = sa.text("""
    with windows as (
        select * from unnest(cast(:numbers as int[]), cast(:start_times as timestamptz[]), cast(:end_times as timestamptz[]))
            as windows (number, start_time, end_time)
    ), entries as (
        select history.instance_id, history.to_status, history.create_time,
            lead(history.create_time, 1, :now) over (partition by history.instance_id order by history.revision) as end_time
        from unnest(cast(:instance_ids as uuid[])) as wanted (instance_id)
        cross join lateral (
            select coalesce(max(held.revision), 0) as revision from status_history as held
            where held.tenant_id = :tenant_id and held.instance_id = wanted.instance_id and held.create_time <= :first_time
        ) as first
        join status_history as history on history.tenant_id = :tenant_id
            and history.instance_id = wanted.instance_id and history.revision >= first.revision
    ), parts as (
        select cast(instance_id as text) as instance_id, number, to_status,
            least(entries.end_time, windows.end_time) - greatest(entries.create_time, windows.start_time) as duration
        from entries join windows on entries.create_time < windows.end_time and entries.end_time > windows.start_time
        where to_status <> ''
    )
    select instance_id, number, coalesce(sum(duration) filter (where to_status = 'READY'), interval '0') as ready,
        sum(duration) as known
    from parts where duration > interval '0' group by instance_id, number
""")
_TRIM = sa.text("""
    with passed as (
        select tenant_id, instance_id, revision, from_status, to_status, create_time from status_history
        where create_time > :after and create_time <= :horizon
        order by create_time fetch first :step rows with ties
    ), newest as (
        select tenant_id, instance_id, max(revision) as revision,
            max(revision) filter (where from_status <> to_status) as change, max(revision) filter (where to_status = '') as deletion
        from passed group by tenant_id, instance_id
    ), trimmed as (
        delete from status_history as old using newest
        where old.tenant_id = newest.tenant_id and old.instance_id = newest.instance_id and (
            old.revision <= newest.deletion or old.revision < newest.change
            or (old.revision < newest.revision and old.from_status = old.to_status))
    )
    select max(create_time) from passed
""")


@dataclass(frozen=True)
class TransitionRow:
    """One entry of an instance's history."""

    instance_id: str
    revision: int
    from_status: str
    to_status: str
    create_time: datetime
    caused_by_run_id: str


async def insert_transitions(connection: Connection, tenant_id: str, rows: Sequence[TransitionRow]) -> None:
    """Append to the histories of instances."""
    await insert(connection, _INSERT_TRANSITIONS, tenant_id, [asdict(row) for row in rows])


async def list_since(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> dict[str, datetime]:
    """Return since when each of the instances has had its status."""
    table = status_history.c
    query = select_of(status_history, tenant_id, instance_ids).with_only_columns(
        table.instance_id, sa.func.max(table.create_time).label("since_time")
    )
    query = query.where(table.from_status != table.to_status).group_by(table.instance_id)
    return {row.instance_id: row.since_time for row in await connection.execute(query)}


async def list_transitions(
    connection: Connection,
    tenant_id: str,
    instance_id: str,
    limit: int,
    *,
    before: int | None,
    start_time: datetime | None,
    end_time: datetime | None,
    only_status_changes: bool,
) -> list[tuple[TransitionRow, datetime | None]]:
    """Return a page of an instance's history, newest first, each entry with the time of the next one.

    `start_time` also selects the entry that held at that time.
    """
    own = _entries(status_history, tenant_id, instance_id, only_status_changes=only_status_changes)
    following, holding = status_history.alias(), status_history.alias()
    next_time = (
        sa.select(following.c.create_time)
        .where(
            *_entries(following, tenant_id, instance_id, only_status_changes=only_status_changes),
            following.c.revision > status_history.c.revision,
        )
        .order_by(following.c.revision)
        .limit(1)
        .scalar_subquery()
    )
    columns = [status_history.c[name] for name in TransitionRow.__dataclass_fields__]
    query = sa.select(*columns, next_time.label("end_time")).where(*own)
    if before is not None:
        query = query.where(status_history.c.revision < before)
    if start_time is not None:
        first = sa.select(sa.func.max(holding.c.revision)).where(
            *_entries(holding, tenant_id, instance_id, only_status_changes=only_status_changes),
            holding.c.create_time <= start_time,
        )
        query = query.where(status_history.c.revision >= sa.func.coalesce(first.scalar_subquery(), 0))
    if end_time is not None:
        query = query.where(status_history.c.create_time < end_time)
    rows = await connection.execute(query.order_by(status_history.c.revision.desc()).limit(limit))
    return [(TransitionRow(*values), end) for *values, end in rows]


def _entries(
    table: sa.FromClause, tenant_id: str, instance_id: str, *, only_status_changes: bool
) -> list[sa.ColumnElement[bool]]:
    conditions = [table.c.tenant_id == tenant_id, table.c.instance_id == instance_id]
    if only_status_changes:
        conditions.append(table.c.from_status != table.c.to_status)
    return conditions


async def list_durations(
    connection: Connection,
    tenant_id: str,
    instance_ids: Collection[str],
    windows: Sequence[Window],
    now: datetime,
) -> dict[tuple[str, int], tuple[timedelta, timedelta]]:
    """Return for instances and windows, by id and index, how long the instance was READY and how long it existed."""
    rows = await connection.execute(
        _DURATIONS,
        {
            "tenant_id": tenant_id,
            "instance_ids": list(instance_ids),
            "numbers": list(range(len(windows))),
            "start_times": [window.start_time for window in windows],
            "end_times": [window.end_time for window in windows],
            "first_time": min(window.start_time for window in windows),
            "now": now,
        },
    )
    return {(row.instance_id, row.number): (row.ready, row.known) for row in rows}


async def trim_history(
    connection: Connection, after: datetime, horizon: datetime, step: int
) -> datetime | None:
    """Remove what entries after one time up to another have replaced; return the newest time of these, if there were any.

    The last entry of an instance stays, because it still holds, and so does the one that brought its status; but nothing holds
    after a deletion.
    """
    parameters = {"after": after, "horizon": horizon, "step": step}
    return (await connection.execute(_TRIM, parameters)).scalar_one()  # type: ignore[no-any-return]  # of the only column
