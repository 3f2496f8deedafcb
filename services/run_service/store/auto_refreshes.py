"""Read and write the flows that follow their upstream flows by themselves.

`wakes` counts what may have changed the decision about a flow. Whoever decides writes only if the count is still the one that was
read before, so that no change is lost and no change is followed twice.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from run_service.store.tables import auto_refreshes
from servicekit.database import Connection
from servicekit.turns import MOST, NOW, UNTIL, in_turns

FlowKey = tuple[str, str, str]  # tenant, instance, flow kind
_KEY = ("tenant_id", "instance_id", "flow_kind")
_DUE = in_turns(
    auto_refreshes,
    lambda columns: columns.due_time <= NOW,
    key=_KEY,
    order="due_time",
    limit=MOST,
    queued=lambda columns: columns.due_time.is_not(None),
    lock=True,
).cte("due")
_CLAIM = (
    sa.update(auto_refreshes)
    .where(*(auto_refreshes.c[name] == _DUE.c[name] for name in _KEY))
    .values(due_time=UNTIL)
    .returning(auto_refreshes.c.tenant_id, auto_refreshes.c.instance_id, auto_refreshes.c.flow_kind)
)
_FOLLOW = sa.text("""
    insert into auto_refreshes as a (tenant_id, instance_id, flow_kind, due_time)
    select :tenant_id, d.instance_id, d.flow_kind, :now
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as d (instance_id, flow_kind)
    order by d.instance_id, d.flow_kind
    on conflict (tenant_id, instance_id, flow_kind) do update set wakes = a.wakes + 1, due_time = :now
""")
# In the order of the key, so that two transactions do not wait for each other.
_WAKE = sa.text("""
    with woken as (
        select a.tenant_id, a.instance_id, a.flow_kind from auto_refreshes a
        where a.tenant_id = :tenant_id and (
            (a.instance_id, a.flow_kind) in (
                select d.instance_id, d.flow_kind
                from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as d (instance_id, flow_kind))
            or a.waits_for && cast(:instance_ids as uuid[])
        )
        order by a.tenant_id, a.instance_id, a.flow_kind for update
    )
    update auto_refreshes a set wakes = a.wakes + 1, due_time = :now from woken w
    where (a.tenant_id, a.instance_id, a.flow_kind) = (w.tenant_id, w.instance_id, w.flow_kind)
    returning 1
""")
_WAKE_HELD = sa.text("""
    with woken as (
        select tenant_id, instance_id, flow_kind from auto_refreshes
        where tenant_id = :tenant_id and is_held and ended_run_id is not null
        order by tenant_id, instance_id, flow_kind for update
    )
    update auto_refreshes a set wakes = a.wakes + 1, due_time = :now from woken w
    where (a.tenant_id, a.instance_id, a.flow_kind) = (w.tenant_id, w.instance_id, w.flow_kind)
""")


@dataclass(frozen=True)
class Following:
    """A flow that follows its upstream flows, as it was left after the last decision."""

    wakes: int
    waits_for: tuple[str, ...]  # the instances whose changes make it due
    submit_time: datetime | None  # of its newest run by itself
    ended_run_id: str | None  # a run that failed or was cancelled
    basis: str  # the versions above it and the code on record when that run was seen


async def follow(
    connection: Connection, tenant_id: str, flows: Collection[tuple[str, str]], now: datetime
) -> None:
    """Decide about flows (instance id, flow kind) from now on, and soon."""
    await connection.execute(_FOLLOW, _parameters(tenant_id, flows, now))


async def forget(connection: Connection, tenant_id: str, instance_ids: Collection[str]) -> None:
    """Decide no more about the flows of instances."""
    if instance_ids:
        await connection.execute(
            sa.delete(auto_refreshes).where(
                auto_refreshes.c.tenant_id == tenant_id, auto_refreshes.c.instance_id.in_(instance_ids)
            )
        )


async def wake(
    connection: Connection, tenant_id: str, flows: Collection[tuple[str, str]], now: datetime
) -> bool:
    """Decide anew about those of the flows that follow, and about those that wait for one of their instances."""
    return (await connection.execute(_WAKE, _parameters(tenant_id, flows, now))).first() is not None


async def wake_held(connection: Connection, tenant_id: str, now: datetime) -> None:
    """Decide anew about the flows that have not run since one of their runs failed."""
    await connection.execute(_WAKE_HELD, {"tenant_id": tenant_id, "now": now})


async def claim_flows(
    connection: Connection, now: datetime, claim_expire_time: datetime, limit: int
) -> list[FlowKey]:
    """Claim flows that are due, on the infra login; no other replica gets them before the claim expires."""
    given = {"now": now, "until": claim_expire_time, "most": limit}
    return sorted((row[0], str(row[1]), row[2]) for row in await connection.execute(_CLAIM, given))


async def get_following(connection: Connection, flow: FlowKey) -> Following | None:
    """Return a flow that follows; None if it does not."""
    columns = auto_refreshes.c
    statement = sa.select(
        columns.wakes, columns.waits_for, columns.submit_time, columns.ended_run_id, columns.basis
    )
    row = (await connection.execute(statement.where(_of(flow)))).one_or_none()
    return None if row is None else Following(row[0], tuple(row[1] or ()), *row[2:])


async def settle(
    connection: Connection,
    flow: FlowKey,
    wakes: int,
    *,
    due_time: datetime | None,
    waits_for: Collection[str] = (),
    is_held: bool = False,
    ended_run_id: str | None = None,
    basis: str = "",
) -> bool:
    """Store a decision by which the flow does not run now; return False if something has changed since it was read."""
    values = {
        "due_time": due_time,
        "waits_for": sorted(waits_for) or None,
        "is_held": is_held,
        "ended_run_id": ended_run_id,
        "basis": basis,
    }
    return await _write(connection, sa.update(auto_refreshes).values(values), flow, wakes)


async def record_submission(connection: Connection, flow: FlowKey, wakes: int, now: datetime) -> bool:
    """Store that the flow runs by itself; return False if something has changed since it was read."""
    values = {
        "wakes": auto_refreshes.c.wakes + 1,
        "due_time": None,
        "waits_for": None,
        "is_held": False,
        "submit_time": now,
    }
    return await _write(connection, sa.update(auto_refreshes).values(values), flow, wakes)


async def drop(connection: Connection, flow: FlowKey, wakes: int) -> bool:
    """Decide no more about a flow; return False if something has changed since it was read."""
    return await _write(connection, sa.delete(auto_refreshes), flow, wakes)


async def _write(connection: Connection, statement: sa.Update | sa.Delete, flow: FlowKey, wakes: int) -> bool:
    statement = statement.where(_of(flow), auto_refreshes.c.wakes == wakes)
    return (await connection.execute(statement.returning(sa.literal(1)))).first() is not None


def _of(flow: FlowKey) -> sa.ColumnElement[bool]:
    tenant_id, instance_id, flow_kind = flow
    columns = auto_refreshes.c
    return sa.and_(
        columns.tenant_id == tenant_id, columns.instance_id == instance_id, columns.flow_kind == flow_kind
    )


def _parameters(tenant_id: str, flows: Collection[tuple[str, str]], now: datetime) -> dict[str, object]:
    listed = sorted(flows)
    return {
        "tenant_id": tenant_id,
        "instance_ids": [instance_id for instance_id, _ in listed],
        "flow_kinds": [flow_kind for _, flow_kind in listed],
        "now": now,
    }
