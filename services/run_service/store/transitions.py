"""Change the status of runs, and write all that follows from it in one statement."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import UUID

from run_service.domain.statuses import RunStatus
from run_service.store.endings import Ending, ending_row
from run_service.store.records import Record, driver_value, record_of
from run_service.store.runs import COLUMNS
from run_service.store.tables import activities, runs
from servicekit.database import Connection
from servicekit.direct import as_text, send
from servicekit.events import Event
from servicekit.outbox import INSERT_EVENTS, note, parameters_of

_ACTIVITY = ", ".join(column.name for column in activities.c)
_ENDING = ", ".join(Ending.__dataclass_fields__)
# Leases are locked before dispatches, as everywhere; so the dispatches wait for what was done with the leases.
_WRITE = sa.text(rf"""
    with given as materialized (select cast(:document as jsonb) as document), activity as (
        insert into activities ({_ACTIVITY}) select {_ACTIVITY}
        from given, jsonb_populate_recordset(null\:\:activities, document -> 'activities')
        on conflict do nothing
    ), released as (
        delete from leases where tenant_id = :tenant_id and run_id = any(cast(:ended as uuid[])) returning 1
    ), dispatched as (
        delete from dispatches where tenant_id = :tenant_id and run_id = any(cast(:paired as uuid[]))
        and (select count(*) from released) >= 0
    ), ending as (
        insert into endings ({_ENDING}) select {_ENDING}
        from given, jsonb_populate_recordset(null\:\:endings, document -> 'endings')
        on conflict do nothing
    )
    {INSERT_EVENTS}
""")  # noqa: S608 - names of our own tables


@dataclass(frozen=True)
class Effects:
    """The rows that follow from transitions of runs of a tenant: entries of timelines, events, and the ends of flow runs."""

    activities: Sequence[Mapping[str, Any]]
    events: Sequence[Event]
    ended: Collection[str] = ()  # runs, whose leases are deleted
    paired: Collection[str] = ()  # runs, whose dispatches are deleted
    endings: Sequence[Ending] = field(default=())


@functools.cache
def _update(names: tuple[str, ...]) -> sa.TextClause:
    """Return the statement that sets these columns of runs."""
    ids = sa.ARRAY(UUID(as_uuid=False))
    listed = (
        sa.func.unnest(
            *(sa.cast(sa.bindparam(name), ids) for name in ("run_ids", "event_ids", "flow_run_ids"))
        )
        .table_valued(
            *(sa.column(name, UUID(as_uuid=False)) for name in ("run_id", "event_id", "flow_run_id")),
            name="listed",
        )
        .render_derived()
    )
    is_of_pair = sa.or_(
        sa.bindparam("is_any_pair", type_=sa.Boolean), runs.c.orchestrator_run_id == listed.c.flow_run_id
    )
    return as_text(
        sa.update(runs)
        .where(
            runs.c.tenant_id == sa.bindparam("tenant_id"),
            runs.c.run_id == listed.c.run_id,
            # A run that has ended never changes.
            runs.c.status == sa.any_(sa.bindparam("sources", type_=sa.ARRAY(sa.Text))),
            is_of_pair,
        )
        .values(
            last_event_id=listed.c.event_id,
            revision=runs.c.revision + sa.literal_column("1"),
            **{name: sa.bindparam(f"new_{name}", type_=runs.c[name].type) for name in names},
        )
        .returning(*COLUMNS)
    )


async def update_runs(
    connection: Connection,
    tenant_id: str,
    event_ids: Mapping[str, str],
    sources: Collection[RunStatus],
    values: Mapping[str, Any],
    pairs: Mapping[str, str] | None = None,
) -> list[Record]:
    """Change those of the runs (run id -> event id) whose status is in `sources`; return them after the change.

    With `pairs` (run id -> flow-run id), change only the runs that still have this flow run.
    """
    given = {
        "tenant_id": tenant_id,
        "run_ids": list(event_ids),
        "event_ids": list(event_ids.values()),
        "flow_run_ids": [(pairs or {}).get(run_id) for run_id in event_ids],
        "is_any_pair": pairs is None,
        "sources": sorted(status.value for status in sources),
    }
    new = {f"new_{name}": driver_value(runs.c[name], value) for name, value in values.items()}
    rows = await connection.execute(_update(tuple(sorted(values))), {**given, **new})
    return [record_of(row) for row in rows.mappings()]


async def write_effects(connection: Connection, tenant_id: str, effects: Effects) -> None:
    """Write what follows from transitions, and announce its events after the commit."""
    document = {
        "activities": effects.activities,
        "endings": [ending_row(each) for each in effects.endings],
    }
    parameters = {
        "tenant_id": tenant_id,
        "document": json.dumps(document, default=datetime.isoformat),
        "ended": list(effects.ended),
        "paired": list(effects.paired),
        **parameters_of(effects.events),
    }
    await send(connection, _WRITE, parameters)
    note(effects.events)
