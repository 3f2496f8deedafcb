"""Store what a scheduled time of a flow waits for; each change has a number."""

from __future__ import annotations

import sqlalchemy as sa

from run_service.store.ticks import FlowKey
from servicekit.database import Connection

_SET = sa.text("""
    insert into flows (tenant_id, instance_id, flow_kind, wait, wait_number)
    values (:tenant_id, cast(:instance_id as uuid), :flow_kind, :wait, 1)
    on conflict (tenant_id, instance_id, flow_kind) do update
        set wait = excluded.wait, wait_number = flows.wait_number + 1
        where flows.wait is distinct from excluded.wait
    returning wait_number
""")
_CLEAR = sa.text("""
    update flows set wait = null, wait_number = wait_number + 1
    where tenant_id = :tenant_id and instance_id = cast(:instance_id as uuid) and flow_kind = :flow_kind
      and wait is not null
    returning wait_number
""")


async def set_wait(connection: Connection, flow: FlowKey, wait: bytes | None) -> int:
    """Set what a scheduled time of a flow waits for, None for nothing; return the number of the change, 0 if there is none."""
    parameters = dict(zip(("tenant_id", "instance_id", "flow_kind"), flow, strict=True))
    if wait is None:
        rows = await connection.execute(_CLEAR, parameters)
    else:
        rows = await connection.execute(_SET, {**parameters, "wait": wait})
    return int(rows.scalar() or 0)
