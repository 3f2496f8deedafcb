"""The queries on the reconciler's work queue; they use the infra login, across tenants, unless stated otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from instance_service.store.tables import reconciliations
from servicekit.database import Connection
from servicekit.turns import MOST, in_turns

_ENQUEUE = sa.text("""
    with known as (insert into tenants (tenant_id) values (:tenant_id) on conflict do nothing)
    insert into reconciliations (tenant_id, instance_id, due_time, attempts)
    select :tenant_id, unnest(cast(:instance_ids as uuid[])), now(), 0
    on conflict (tenant_id, instance_id) do update set due_time = now(), attempts = 0
""")
_SETTLE = sa.text("""
    update reconciliations set due_time = null, attempts = 0
    from unnest(cast(:tenant_ids as text[]), cast(:instance_ids as uuid[]), cast(:leases as timestamptz[]))
        as settled (tenant_id, instance_id, lease)
    where reconciliations.tenant_id = settled.tenant_id and reconciliations.instance_id = settled.instance_id
        and reconciliations.due_time = settled.lease
""")
_POSTPONE = sa.text("""
    update reconciliations set due_time = now() + make_interval(secs => postponed.delay)
    from unnest(cast(:tenant_ids as text[]), cast(:instance_ids as uuid[]), cast(:leases as timestamptz[]),
            cast(:delays as double precision[])) as postponed (tenant_id, instance_id, lease, delay)
    where reconciliations.tenant_id = postponed.tenant_id
        and reconciliations.instance_id = postponed.instance_id
        and reconciliations.due_time = postponed.lease
""")
_REPEAT = sa.text("""
    update reconciliations set due_time = now() + make_interval(secs => :delay)
    where tenant_id = :tenant_id and instance_id = any(cast(:instance_ids as uuid[]))
""")
_DELETE = sa.text("""
    delete from reconciliations
    where tenant_id = :tenant_id and instance_id = any(cast(:instance_ids as uuid[]))
""")
_LIST = sa.text("""
    select tenant_id, cast(instance_id as text), due_time is null as is_settled from reconciliations
    where (tenant_id, instance_id) > (:tenant_id, cast(:instance_id as uuid))
    order by tenant_id, instance_id limit :limit
""")
_DUE = in_turns(
    reconciliations,
    lambda columns: columns.due_time <= sa.func.now(),
    key=("tenant_id", "instance_id"),
    order="due_time",
    limit=MOST,
    queued=lambda columns: columns.due_time.is_not(None),
    lock=True,
).cte("due")
_LEASE = sa.bindparam("lease_seconds", type_=sa.Double)
_CLAIM = (
    sa.update(reconciliations)
    .where(
        reconciliations.c.tenant_id == _DUE.c.tenant_id, reconciliations.c.instance_id == _DUE.c.instance_id
    )
    .values(
        due_time=sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, _LEASE),
        attempts=reconciliations.c.attempts + 1,
    )
    .returning(*(reconciliations.c[name] for name in ("tenant_id", "instance_id", "due_time", "attempts")))
)
FIRST_ID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Claim:
    """The right to work on one instance until the lease ends."""

    tenant_id: str
    instance_id: str
    lease: datetime
    attempts: int


async def enqueue(connection: Connection, tenant_id: str, instance_ids: Sequence[str]) -> None:
    """Make instances due now; both logins may do this."""
    if instance_ids:
        await connection.execute(_ENQUEUE, {"tenant_id": tenant_id, "instance_ids": list(instance_ids)})


async def claim(connection: Connection, limit: int, lease_seconds: float) -> list[Claim]:
    """Claim due instances; until the lease ends, no other process gets them."""
    given = {"most": limit, "lease_seconds": lease_seconds}
    return [Claim(*row) for row in await connection.execute(_CLAIM, given)]


async def settle(connection: Connection, claims: Sequence[Claim]) -> None:
    """Mark claimed work as done; an instance that became due again in the meantime stays due."""
    await connection.execute(_SETTLE, _columns(claims))


async def postpone(connection: Connection, delays: Mapping[Claim, float]) -> None:
    """Make each claimed instance due again after its delay in seconds."""
    parameters = {**_columns(list(delays)), "delays": list(delays.values())}
    await connection.execute(_POSTPONE, parameters)


async def repeat(connection: Connection, tenant_id: str, instance_ids: Sequence[str], delay: float) -> None:
    """Make instances due again even if they are claimed, so that current work on them is repeated; both logins may do this."""
    if instance_ids:
        parameters = {"tenant_id": tenant_id, "instance_ids": list(instance_ids), "delay": delay}
        await connection.execute(_REPEAT, parameters)


async def delete(connection: Connection, tenant_id: str, instance_ids: Sequence[str]) -> None:
    """Delete the rows of deleted instances; both logins may do this."""
    await connection.execute(_DELETE, {"tenant_id": tenant_id, "instance_ids": list(instance_ids)})


async def is_settled(connection: Connection, tenant_id: str, instance_id: str) -> bool:
    """Return whether no work is left for an instance; both logins may do this."""
    statement = sa.select(sa.literal(1)).where(
        reconciliations.c.tenant_id == tenant_id,
        reconciliations.c.instance_id == instance_id,
        reconciliations.c.due_time.is_not(None),
    )
    return (await connection.execute(statement)).first() is None


async def count_unsettled(connection: Connection) -> int:
    """Return the number of instances with work left."""
    statement = sa.select(sa.func.count()).where(reconciliations.c.due_time.is_not(None))
    return int((await connection.execute(statement)).scalar_one())


async def list_after(
    connection: Connection, tenant_id: str, instance_id: str, limit: int
) -> list[tuple[str, str, bool]]:
    """Return (tenant, instance, is settled) after a position."""
    parameters = {"tenant_id": tenant_id, "instance_id": instance_id, "limit": limit}
    return [(row[0], row[1], row[2]) for row in await connection.execute(_LIST, parameters)]


def _columns(claims: Sequence[Claim]) -> dict[str, list[object]]:
    return {
        "tenant_ids": [claim.tenant_id for claim in claims],
        "instance_ids": [claim.instance_id for claim in claims],
        "leases": [claim.lease for claim in claims],
    }
