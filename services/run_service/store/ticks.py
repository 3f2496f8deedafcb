"""Read and write the queue of scheduled times ("ticks") that wait."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from run_service.store.tables import ticks
from servicekit.database import Connection
from servicekit.turns import MOST, NOW, UNTIL, in_turns

FlowKey = tuple[str, str, str]  # tenant, instance, flow kind
_KEY = ("tenant_id", "instance_id", "flow_kind", "scheduled_time")
_DUE = in_turns(
    ticks, lambda columns: columns.due_time <= NOW, key=_KEY, order="due_time", limit=MOST, lock=True
).cte("due")
_CLAIM = (
    sa.update(ticks)
    .where(*(ticks.c[name] == _DUE.c[name] for name in _KEY))
    .values(due_time=UNTIL)
    .returning(ticks.c.tenant_id, ticks.c.instance_id, ticks.c.flow_kind)
)


_TICK = (ticks.c.scheduled_time, ticks.c.orchestrator_run_id, ticks.c.wait_start_time)
# In no order, so none waits for a row that another transaction has: it passes that one over, which is looked at again.
_WAKE = sa.text("""
    with awaiting as (
        select tenant_id, instance_id, flow_kind, scheduled_time from ticks
        where tenant_id = :tenant_id and waits_for && cast(:instance_ids as uuid[]) and due_time > :now
        for update skip locked
    )
    update ticks t set due_time = :now from awaiting a
    where (t.tenant_id, t.instance_id, t.flow_kind, t.scheduled_time)
        = (a.tenant_id, a.instance_id, a.flow_kind, a.scheduled_time)
    returning 1
""")


@dataclass(frozen=True)
class Tick:
    """A scheduled time of a flow, and the flow run that Prefect created for it."""

    scheduled_time: datetime
    orchestrator_run_id: str
    wait_start_time: datetime | None = None  # since when it waits for upstream flows


async def insert_tick(
    connection: Connection, flow: FlowKey, tick: Tick, due_time: datetime, waits_for: Collection[str] = ()
) -> None:
    """Queue a scheduled time, which may wait for flows of instances; one that waits already is not changed."""
    tenant_id, instance_id, flow_kind = flow
    row = {"tenant_id": tenant_id, "instance_id": instance_id, "flow_kind": flow_kind, "due_time": due_time}
    row |= {"scheduled_time": tick.scheduled_time, "orchestrator_run_id": tick.orchestrator_run_id}
    row |= {"wait_start_time": tick.wait_start_time, "waits_for": sorted(waits_for) or None}
    await connection.execute(insert(ticks).values(row).on_conflict_do_nothing())


async def list_ticks(connection: Connection, flow: FlowKey) -> list[Tick]:
    """Return the waiting ticks of a flow, oldest first."""
    rows = await connection.execute(sa.select(*_TICK).where(_of(flow)).order_by(ticks.c.scheduled_time))
    return [Tick(*row) for row in rows]


async def delete_tick(connection: Connection, flow: FlowKey, scheduled_time: datetime) -> Tick | None:
    """Delete a waiting tick, and return it; None if it does not wait."""
    statement = sa.delete(ticks).where(_of(flow), ticks.c.scheduled_time == scheduled_time)
    row = (await connection.execute(statement.returning(*_TICK))).one_or_none()
    return None if row is None else Tick(*row)


async def claim_flows(
    connection: Connection, now: datetime, claim_expire_time: datetime, limit: int
) -> list[FlowKey]:
    """Claim flows with a due tick, on the infra login; no other replica gets them before the claim expires."""
    given = {"now": now, "until": claim_expire_time, "most": limit}
    return sorted({(row[0], str(row[1]), row[2]) for row in await connection.execute(_CLAIM, given)})


async def postpone_ticks(connection: Connection, flow: FlowKey, due_time: datetime) -> None:
    """Have the ticks of a flow looked at again at `due_time`."""
    await connection.execute(sa.update(ticks).where(_of(flow)).values(due_time=due_time))


async def keep_waiting(
    connection: Connection, flow: FlowKey, waits_for: Collection[str], now: datetime, due_time: datetime
) -> None:
    """Have the ticks of a flow wait for flows of instances; they are looked at again at `due_time`, or at once if woken."""
    await connection.execute(
        sa.update(ticks)
        .where(_of(flow))
        .values(
            wait_start_time=sa.func.coalesce(ticks.c.wait_start_time, now),
            waits_for=sorted(waits_for),
            # One that has been woken since it was claimed stays due.
            due_time=sa.case((ticks.c.due_time > now, due_time), else_=ticks.c.due_time),
        )
    )


async def get_refresh_id(connection: Connection, flow: FlowKey, scheduled_time: datetime) -> str:
    """Return the refresh that a waiting tick has submitted or joined; empty if none."""
    statement = sa.select(ticks.c.refresh_id).where(_of(flow), ticks.c.scheduled_time == scheduled_time)
    return (await connection.execute(statement)).scalar_one_or_none() or ""


async def set_refresh_id(
    connection: Connection, flow: FlowKey, scheduled_time: datetime, refresh_id: str
) -> bool:
    """Store the refresh of a waiting tick; return False if it has one already, or does not wait any more."""
    statement = (
        sa.update(ticks)
        .where(_of(flow), ticks.c.scheduled_time == scheduled_time, ticks.c.refresh_id.is_(None))
        .values(refresh_id=refresh_id)
        .returning(sa.literal(1))
    )
    return (await connection.execute(statement)).first() is not None


async def wake_waiting(
    connection: Connection, tenant_id: str, instance_ids: Collection[str], now: datetime
) -> bool:
    """Have the ticks looked at that wait for a flow of the instances; return whether there are any."""
    parameters = {"tenant_id": tenant_id, "instance_ids": sorted(instance_ids), "now": now}
    return (await connection.execute(_WAKE, parameters)).first() is not None


def _of(flow: FlowKey) -> sa.ColumnElement[bool]:
    tenant_id, instance_id, flow_kind = flow
    return sa.and_(
        ticks.c.tenant_id == tenant_id, ticks.c.instance_id == instance_id, ticks.c.flow_kind == flow_kind
    )
