"""Read and write the queue of scheduled times ("ticks") that wait."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Tick:
    """A scheduled time of a flow, and the flow run that Prefect created for it."""

    scheduled_time: datetime
    orchestrator_run_id: str


async def insert_tick(connection: Connection, flow: FlowKey, tick: Tick, due_time: datetime) -> None:
    """Queue a scheduled time; one that waits already is not changed."""
    tenant_id, instance_id, flow_kind = flow
    row = {"tenant_id": tenant_id, "instance_id": instance_id, "flow_kind": flow_kind, "due_time": due_time}
    row |= {"scheduled_time": tick.scheduled_time, "orchestrator_run_id": tick.orchestrator_run_id}
    await connection.execute(insert(ticks).values(row).on_conflict_do_nothing())


async def list_ticks(connection: Connection, flow: FlowKey) -> list[Tick]:
    """Return the waiting ticks of a flow, oldest first."""
    statement = sa.select(ticks.c.scheduled_time, ticks.c.orchestrator_run_id).where(_of(flow))
    rows = await connection.execute(statement.order_by(ticks.c.scheduled_time))
    return [Tick(row.scheduled_time, str(row.orchestrator_run_id)) for row in rows]


async def delete_tick(connection: Connection, flow: FlowKey, scheduled_time: datetime) -> bool:
    """Delete a waiting tick; return whether it was waiting."""
    statement = sa.delete(ticks).where(_of(flow), ticks.c.scheduled_time == scheduled_time)
    return (await connection.execute(statement.returning(sa.literal(1)))).first() is not None


async def claim_flows(
    connection: Connection, now: datetime, claim_expire_time: datetime, limit: int
) -> list[FlowKey]:
    """Claim flows with a due tick, on the infra login; no other replica gets them before the claim expires."""
    given = {"now": now, "until": claim_expire_time, "most": limit}
    return sorted({(row[0], str(row[1]), row[2]) for row in await connection.execute(_CLAIM, given)})


async def postpone_ticks(connection: Connection, flow: FlowKey, due_time: datetime) -> None:
    """Have the ticks of a flow looked at again at `due_time`."""
    await connection.execute(sa.update(ticks).where(_of(flow)).values(due_time=due_time))


def _of(flow: FlowKey) -> sa.ColumnElement[bool]:
    tenant_id, instance_id, flow_kind = flow
    return sa.and_(
        ticks.c.tenant_id == tenant_id, ticks.c.instance_id == instance_id, ticks.c.flow_kind == flow_kind
    )
