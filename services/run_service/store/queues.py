"""Read and write the queues of dispatches, leases and retries, across tenants; due entries are claimed for a time."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from run_service.store.tables import dispatches, leases, retries
from servicekit.database import Connection
from servicekit.turns import MOST, NOW, UNTIL, in_turns

RunKey = tuple[str, str]  # tenant id, run id


@dataclass(frozen=True)
class Dispatch:
    """A run to dispatch, to compare with its flow run, or whose flow run to find."""

    tenant_id: str
    run_id: str
    action: str
    instance_id: str
    flow_kind: str
    name: str
    orchestrator_run_id: str | None
    submit_time: datetime
    attempts: int
    number: int
    seen_state: str
    seen_since_time: datetime | None
    # Tells this claim from later ones, so that a late replica does not act for another.
    claim_expire_time: datetime | None

    @property
    def key(self) -> RunKey:
        """The row's key."""
        return (self.tenant_id, self.run_id)


_DISPATCH_FIELDS = tuple(dispatches.c[name] for name in Dispatch.__dataclass_fields__)


_KEY = ("tenant_id", "run_id")


@functools.cache
def _claim(table: sa.Table, actions: frozenset[str], fields: tuple[sa.Column[Any], ...]) -> sa.Update:
    """Return the statement that claims due rows that nobody has claimed, in turns of the tenants."""

    def is_due(columns: Any) -> sa.ColumnElement[bool]:
        is_free = sa.or_(columns.claim_expire_time.is_(None), columns.claim_expire_time <= NOW)
        is_wanted = columns.action.in_(sorted(actions)) if actions else sa.true()
        return sa.and_(columns.due_time <= NOW, is_free, is_wanted)

    due = in_turns(table, is_due, key=_KEY, order="due_time", limit=MOST, lock=True).cte("due")
    return (
        sa.update(table)
        .where(*(table.c[name] == due.c[name] for name in _KEY))
        .values(claim_expire_time=UNTIL)
        .returning(*fields)
    )


_EXPIRED_DISPATCHES = in_turns(
    dispatches,
    lambda columns: sa.and_(columns.action.in_(["create", "await"]), columns.submit_time < NOW),
    key=_KEY,
    order="submit_time",
    limit=MOST,
)
_EXPIRED_LEASES = in_turns(
    leases, lambda columns: columns.expire_time <= NOW, key=_KEY, order="expire_time", limit=MOST
)


def _is_one_of(table: sa.Table, keys: Collection[RunKey]) -> sa.ColumnElement[bool]:
    return sa.tuple_(table.c.tenant_id, table.c.run_id).in_(list(keys))


async def claim_dispatches(
    connection: Connection,
    actions: Collection[str],
    now: datetime,
    claim_expire_time: datetime,
    limit: int,
) -> list[Dispatch]:
    """Claim due dispatches; no other replica gets them before the claim expires."""
    statement = _claim(dispatches, frozenset(actions), _DISPATCH_FIELDS)
    given = {"now": now, "until": claim_expire_time, "most": limit}
    return [Dispatch(*row) for row in await connection.execute(statement, given)]


async def update_dispatches(
    connection: Connection,
    claimed: Collection[Dispatch],
    values: Mapping[str, Any],
    *,
    action: str | None = None,
) -> None:
    """Release claimed dispatches with new values, except those that another replica has claimed since.

    With `action`, the values are for those whose action is still this one; the others are only released.
    """
    if not claimed:
        return
    claim = sa.tuple_(dispatches.c.tenant_id, dispatches.c.run_id, dispatches.c.claim_expire_time)
    released = sa.update(dispatches).where(
        claim.in_([(each.tenant_id, each.run_id, each.claim_expire_time) for each in claimed])
    )
    if action is not None:
        await connection.execute(released.where(dispatches.c.action != action).values(claim_expire_time=None))
        released = released.where(dispatches.c.action == action)
    await connection.execute(released.values({"claim_expire_time": None, **values}))


async def renew_dispatches(
    connection: Connection, keys: Collection[RunKey], now: datetime, *, is_next: bool
) -> None:
    """Dispatch runs that have not started again: with `is_next` by their next flow run, otherwise by the same one."""
    values = {
        "claim_expire_time": None,
        "action": "create",
        "orchestrator_run_id": None,
        "due_time": now,
        "attempts": 0,
        "number": dispatches.c.number + (1 if is_next else 0),
        "seen_state": "",
        "seen_since_time": None,
    }
    if keys:
        statement = sa.update(dispatches).where(_is_one_of(dispatches, keys), dispatches.c.action == "await")
        await connection.execute(statement.values(values))


async def delete_dispatches(connection: Connection, keys: Collection[RunKey]) -> None:
    """Remove the dispatches of runs for which nothing is left to do."""
    if keys:
        await connection.execute(sa.delete(dispatches).where(_is_one_of(dispatches, keys)))


async def observe_dispatch(
    connection: Connection, tenant_id: str, run_id: str, orchestrator_run_id: str, due_time: datetime
) -> None:
    """Mark a run as started: from now on it is compared with its flow run."""
    await connection.execute(
        sa.update(dispatches)
        .where(
            dispatches.c.tenant_id == tenant_id,
            dispatches.c.run_id == run_id,
            dispatches.c.action != "cancel",
        )
        .values(action="observe", orchestrator_run_id=orchestrator_run_id, due_time=due_time)
    )


async def cancel_dispatches(
    connection: Connection, tenant_id: str, run_ids: Collection[str], now: datetime
) -> None:
    """Have the flow runs of ended runs found, which may have been created although no answer came."""
    await connection.execute(
        sa.update(dispatches)
        .where(dispatches.c.tenant_id == tenant_id, dispatches.c.run_id.in_(run_ids))
        .values(action="cancel", due_time=now, attempts=0)
    )


async def forget_ages(connection: Connection, now: datetime) -> None:
    """Restart the ages of all seen states, after a time in which no run could start."""
    await connection.execute(
        sa.update(dispatches).where(dispatches.c.seen_since_time < now).values(seen_since_time=now)
    )


async def list_expired_dispatches(connection: Connection, before: datetime, limit: int) -> list[RunKey]:
    """Return runs submitted before a moment that have not started."""
    rows = await connection.execute(_EXPIRED_DISPATCHES, {"now": before, "most": limit})
    return [(row.tenant_id, row.run_id) for row in rows]


async def insert_lease(
    connection: Connection, tenant_id: str, run_id: str, fencing_token: str, expire_time: datetime
) -> None:
    """Give a run to an executor until `expire_time`; the same executor may take it again."""
    statement = insert(leases).values(
        tenant_id=tenant_id, run_id=run_id, fencing_token=fencing_token, expire_time=expire_time
    )
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[leases.c.tenant_id, leases.c.run_id], set_={"expire_time": expire_time}
        )
    )


async def extend_lease(
    connection: Connection, tenant_id: str, run_id: str, fencing_token: str, expire_time: datetime
) -> bool:
    """Extend a lease; return False if the token does not hold the run."""
    statement = (
        sa.update(leases)
        .where(
            leases.c.tenant_id == tenant_id,
            leases.c.run_id == run_id,
            leases.c.fencing_token == fencing_token,
        )
        .values(expire_time=sa.func.greatest(leases.c.expire_time, expire_time))
        .returning(sa.literal(1))
    )
    return (await connection.execute(statement)).first() is not None


async def extend_all_leases(connection: Connection, expire_time: datetime) -> None:
    """Extend every lease to `expire_time`, after a time in which no executor could report."""
    await connection.execute(
        sa.update(leases).where(leases.c.expire_time < expire_time).values(expire_time=expire_time)
    )


async def list_expired_leases(connection: Connection, now: datetime, limit: int) -> list[RunKey]:
    """Return runs with expired leases."""
    rows = await connection.execute(_EXPIRED_LEASES, {"now": now, "most": limit})
    return [(row.tenant_id, row.run_id) for row in rows]


async def lock_expired_leases(
    connection: Connection, tenant_id: str, run_ids: Collection[str], now: datetime
) -> list[str]:
    """Lock leases that are still expired, and return their runs; a heartbeat that came first keeps its run."""
    statement = (
        sa.select(leases.c.run_id)
        .where(leases.c.tenant_id == tenant_id, leases.c.run_id.in_(run_ids), leases.c.expire_time <= now)
        .order_by(leases.c.run_id)
        .with_for_update()
    )
    return list((await connection.execute(statement)).scalars())


async def insert_retries(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Queue retries of failed runs."""
    if rows:
        await connection.execute(insert(retries).on_conflict_do_nothing(), [dict(row) for row in rows])


async def claim_retries(
    connection: Connection, now: datetime, claim_expire_time: datetime, limit: int
) -> list[RunKey]:
    """Claim due retries; no other replica gets them before the claim expires."""
    statement = _claim(retries, frozenset(), (retries.c.tenant_id, retries.c.run_id))
    given = {"now": now, "until": claim_expire_time, "most": limit}
    return [(row.tenant_id, row.run_id) for row in await connection.execute(statement, given)]


async def delete_retry(connection: Connection, tenant_id: str, run_id: str) -> bool:
    """Delete the retry of a failed run; return whether one was waiting."""
    statement = sa.delete(retries).where(retries.c.tenant_id == tenant_id, retries.c.run_id == run_id)
    return (await connection.execute(statement.returning(sa.literal(1)))).first() is not None
