"""Read the work of flows that has not ended: active runs, waiting scheduled times, retries, planned times, and whether they follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from servicekit.database import Connection

FlowKey = tuple[str, str]  # instance id, flow kind
_LISTED = (
    "unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as listed (instance_id, flow_kind)"
)
_LIST_WORK = sa.text(f"""
    with retried as (
        select distinct r.instance_id, r.flow_kind from retries q
        join runs r on r.tenant_id = q.tenant_id and r.run_id = q.run_id
        where q.tenant_id = :tenant_id
    )
    select cast(listed.instance_id as text), listed.flow_kind, a.active_time, w.waiting_time,
        retried.instance_id is not null, f.instance_id is not null, u.refresh_ids
    from {_LISTED}
    left join lateral (
        select coalesce(scheduled_time, submit_time) as active_time from runs r
        where r.tenant_id = :tenant_id and r.instance_id = listed.instance_id and r.flow_kind = listed.flow_kind
          and r.status in ('pending', 'running')
    ) a on true
    left join lateral (
        select min(scheduled_time) as waiting_time from ticks t
        where t.tenant_id = :tenant_id and t.instance_id = listed.instance_id and t.flow_kind = listed.flow_kind
    ) w on true
    left join retried on retried.instance_id = listed.instance_id and retried.flow_kind = listed.flow_kind
    left join auto_refreshes f on f.tenant_id = :tenant_id and f.instance_id = listed.instance_id
        and f.flow_kind = listed.flow_kind and not f.is_held
    left join lateral (
        select array_agg(cast(refresh_id as text)) as refresh_ids from refresh_flows u
        where u.tenant_id = :tenant_id and u.instance_id = listed.instance_id and u.flow_kind = listed.flow_kind
          and u.status in ('waiting', 'running')
    ) u on true
    where a.active_time is not null or w.waiting_time is not null or retried.instance_id is not null
       or f.instance_id is not null or u.refresh_ids is not null
""")  # noqa: S608 - constants
_LIST_RECORDED = sa.text("""
    select cast(listed.instance_id as text), listed.flow_kind, listed.scheduled_time
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[]), cast(:times as timestamptz[]))
        as listed (instance_id, flow_kind, scheduled_time)
    join runs r on r.tenant_id = :tenant_id and r.instance_id = listed.instance_id
        and r.flow_kind = listed.flow_kind and r.scheduled_time = listed.scheduled_time
""")
_LIST_TIMES = sa.text("""
    select cast(r.run_id as text), coalesce(r.scheduled_time, r.submit_time) from runs r
    where r.tenant_id = :tenant_id and r.run_id = any(cast(:run_ids as uuid[]))
      and not exists (
          select from refresh_flows f where f.tenant_id = r.tenant_id and f.run_id = r.run_id
            and f.instance_id = r.instance_id and f.flow_kind = r.flow_kind
            and f.refresh_id = cast(nullif(:refresh_id, '') as uuid))
""")
_LIST_UNSETTLED = sa.text("""
    select cast(f.instance_id as text), f.flow_kind, f.instance_name from ticks t
    join refresh_flows f on f.tenant_id = t.tenant_id and f.refresh_id = t.refresh_id
    where t.tenant_id = :tenant_id and t.instance_id = :instance_id and t.flow_kind = :flow_kind
      and t.scheduled_time = :scheduled_time and f.instance_id = any(t.waits_for) and f.status in ('waiting', 'running')
      and (f.instance_id, f.flow_kind) <> (t.instance_id, t.flow_kind)
""")


@dataclass(frozen=True)
class Work:
    """The work of a flow that has not ended, apart from times that are only planned."""

    active_time: datetime | None = None  # when the active run was planned, or else submitted
    waiting_time: datetime | None = None  # the earliest scheduled time that waits
    has_retry: bool = False
    follows: bool = False  # it runs by itself when its upstream flows are READY
    refresh_ids: Collection[str] | None = None  # the running refreshes that have yet to bring it up to date


async def list_work(
    connection: Connection, tenant_id: str, flows: Collection[FlowKey]
) -> dict[FlowKey, Work]:
    """Return the work of those of the flows that have any."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": [instance_id for instance_id, _ in flows],
        "flow_kinds": [flow_kind for _, flow_kind in flows],
    }
    rows = await connection.execute(_LIST_WORK, parameters)
    return {(row[0], row[1]): Work(*row[2:]) for row in rows}


async def list_recorded(
    connection: Connection, tenant_id: str, planned: Mapping[FlowKey, Sequence[datetime]]
) -> set[tuple[FlowKey, datetime]]:
    """Return those of the planned times that have a run, be it one that was refused."""
    listed = [(*flow, time) for flow, times in planned.items() for time in times]
    if not listed:
        return set()
    instance_ids, flow_kinds, times = (list(column) for column in zip(*listed, strict=True))
    parameters = {"instance_ids": instance_ids, "flow_kinds": flow_kinds, "times": times}
    rows = await connection.execute(_LIST_RECORDED, {"tenant_id": tenant_id, **parameters})
    return {((row[0], row[1]), row[2]) for row in rows}


async def list_times(
    connection: Connection, tenant_id: str, run_ids: Collection[str], *, without_refresh: str = ""
) -> dict[str, datetime]:
    """Return when each of the runs was planned, or else submitted, except for those of one refresh."""
    if not run_ids:
        return {}
    parameters = {"tenant_id": tenant_id, "run_ids": sorted(run_ids), "refresh_id": without_refresh}
    rows = await connection.execute(_LIST_TIMES, parameters)
    return {row[0]: row[1] for row in rows}


async def list_unsettled(
    connection: Connection, flow: tuple[str, str, str], scheduled_time: datetime
) -> dict[FlowKey, str]:
    """Return the flows that the refresh of a waiting scheduled time has yet to bring up to date, with the names of their instances.

    They are those of the instances that it waits for. The scheduled time is that of a flow (tenant id, instance id, flow kind).
    """
    tenant_id, instance_id, flow_kind = flow
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id, "flow_kind": flow_kind}
    rows = await connection.execute(_LIST_UNSETTLED, {**parameters, "scheduled_time": scheduled_time})
    return {(row[0], row[1]): row[2] for row in rows}
