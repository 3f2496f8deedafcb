"""The queries on probes of sources: which are due, and what became of them."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from servicekit.database import Connection

_CLAIM = sa.text("""
    with due as (
        select i.instance_id, o.run_number
        from datasets d
        join instances i on i.tenant_id = :tenant_id and i.instance_id = d.instance_id
                        and i.state <> 'deleting'
        join outputs o on o.tenant_id = :tenant_id and o.instance_id = d.instance_id and o.flow_kind = 'refresh'
        left join probes p on p.tenant_id = :tenant_id and p.instance_id = d.instance_id
        where d.tenant_id = :tenant_id and d.probe_seconds is not null and coalesce(p.due_time, :now) <= :now
        order by p.due_time nulls first, i.instance_id limit :most
    ), claimed as (
        insert into probes as p (tenant_id, instance_id, due_time, probe_number, failures)
        select :tenant_id, instance_id, :lease_time, 0, 0 from due order by instance_id
        on conflict (tenant_id, instance_id) do update set due_time = excluded.due_time where p.due_time <= :now
        returning p.instance_id
    )
    select cast(due.instance_id as text), due.run_number from claimed join due using (instance_id)
    order by due.instance_id
""")
_FINISH = sa.text("""
    update probes p
    set due_time = :now + make_interval(secs => d.probe_seconds),
        probe_number = p.probe_number + case when :is_answered then 1 else 0 end,
        failures = case when :is_answered then 0 else p.failures + 1 end
    from datasets d
    where p.tenant_id = :tenant_id and p.instance_id = cast(:instance_id as uuid)
      and d.tenant_id = :tenant_id and d.instance_id = p.instance_id and d.probe_seconds is not null
    returning p.probe_number, p.failures, old.failures
""")


class Claimed(NamedTuple):
    """A source to be probed, and the newest completed run of its flow."""

    instance_id: str
    run_number: int


class Finished(NamedTuple):
    """A source that was probed: how often with an answer, and how often without one since then, now and before."""

    probe_number: int
    failures: int
    failures_before: int


async def claim_probes(
    connection: Connection, tenant_id: str, *, now: datetime, lease_time: datetime, most: int
) -> list[Claimed]:
    """Claim the sources that are due, the longest due first; they are due again after the lease."""
    parameters = {"tenant_id": tenant_id, "now": now, "lease_time": lease_time, "most": most}
    return [Claimed(*row) for row in await connection.execute(_CLAIM, parameters)]


async def finish_probe(
    connection: Connection, tenant_id: str, instance_id: str, *, now: datetime, is_answered: bool
) -> Finished | None:
    """Record a probe, and make the source due again after its interval; None if it is not probed any more."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_id": instance_id,
        "now": now,
        "is_answered": is_answered,
    }
    row = (await connection.execute(_FINISH, parameters)).one_or_none()
    return None if row is None else Finished(*row)
