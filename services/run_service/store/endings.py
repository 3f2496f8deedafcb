"""Read and write the queue of flow runs that must end; a row stays until the orchestrator shows the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from run_service.domain.pairing import FlowRunState
from run_service.store.tables import endings
from servicekit.database import Connection
from servicekit.turns import MOST, NOW, UNTIL, in_turns

FlowRunKey = tuple[str, str]  # tenant id, flow-run id
_LOCK = sa.text("select pg_advisory_xact_lock(hashtextextended('run_service.flow_run:' || :id, 0))")


@dataclass(frozen=True)
class Ending:
    """A flow run that must end, in which state, and why."""

    tenant_id: str
    orchestrator_run_id: str
    run_id: str | None  # None: it never had a run
    instance_id: str | None  # None: queued by an earlier release
    state: FlowRunState
    message: str
    settle_time: datetime  # it is checked until then, although it has ended as it must
    due_time: datetime
    attempts: int = 0

    @property
    def key(self) -> FlowRunKey:
        """The row's key."""
        return (self.tenant_id, self.orchestrator_run_id)


_FIELDS = [endings.c[name] for name in Ending.__dataclass_fields__]
_KEY = ("tenant_id", "orchestrator_run_id")


def _is_due(columns: Any) -> sa.ColumnElement[bool]:
    is_free = sa.or_(columns.claim_expire_time.is_(None), columns.claim_expire_time <= NOW)
    return sa.and_(columns.due_time <= NOW, is_free)


_DUE = in_turns(endings, _is_due, key=_KEY, order="due_time", limit=MOST, lock=True).cte("due")
_CLAIM = (
    sa.update(endings)
    .where(*(endings.c[name] == _DUE.c[name] for name in _KEY))
    .values(claim_expire_time=UNTIL)
    .returning(*_FIELDS)
)


async def insert_endings(connection: Connection, wanted: Collection[Ending]) -> None:
    """Queue flow runs that must end; the first row of a flow run counts."""
    if rows := [ending_row(each) for each in wanted]:
        await connection.execute(insert(endings).on_conflict_do_nothing(), rows)


def ending_row(ending: Ending) -> dict[str, Any]:
    """Return a flow run that must end as a row."""
    # psycopg would send an enum's name.
    return {**vars(ending), "state": ending.state.value}


async def is_ending(connection: Connection, tenant_id: str, orchestrator_run_id: str) -> bool:
    """Return whether a flow run is queued to end."""
    statement = sa.select(sa.literal(1)).where(_is_one_of([(tenant_id, orchestrator_run_id)]))
    return (await connection.execute(statement)).first() is not None


async def lock_flow_run(connection: Connection, orchestrator_run_id: str) -> None:
    """Lock a flow run until the end of the transaction; adoption and ending exclude each other by it.

    This is a statement of its own, because the next one must take its snapshot while the lock is held.
    """
    await connection.execute(_LOCK, {"id": orchestrator_run_id})


async def claim_endings(
    connection: Connection, now: datetime, claim_expire_time: datetime, limit: int
) -> list[Ending]:
    """Claim due entries, on the infra login; no other replica gets them before the claim expires."""
    given = {"now": now, "until": claim_expire_time, "most": limit}
    rows = (await connection.execute(_CLAIM, given)).mappings()
    return [Ending(**{**row, "state": FlowRunState(row["state"])}) for row in rows]


async def update_endings(
    connection: Connection, keys: Collection[FlowRunKey], values: Mapping[str, Any]
) -> None:
    """Release claimed entries with new values."""
    if keys:
        statement = sa.update(endings).where(_is_one_of(keys))
        await connection.execute(statement.values({"claim_expire_time": None, **values}))


async def delete_endings(connection: Connection, keys: Collection[FlowRunKey]) -> None:
    """Delete the rows of flow runs that have ended as they had to."""
    if keys:
        await connection.execute(sa.delete(endings).where(_is_one_of(keys)))


def _is_one_of(keys: Collection[FlowRunKey]) -> sa.ColumnElement[bool]:
    return sa.tuple_(endings.c.tenant_id, endings.c.orchestrator_run_id).in_(list(keys))
