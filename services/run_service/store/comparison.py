"""Read the run numbers that other services compare with what they know."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa

from servicekit.database import Connection

_OF_FLOW = """
    select run_id, run_number from runs
    where runs.tenant_id = :tenant_id and runs.instance_id = f.instance_id and runs.flow_kind = f.flow_kind
      and run_number > 0
"""
_NEWEST = "order by run_number desc limit 1"
_SELECT = f"""
    select cast(f.instance_id as text), f.flow_kind, newest.run_number, coalesce(ended.run_number, 0),
           coalesce(outcome.run_number, 0), coalesce(completed.run_number, 0), coalesce(whole.run_number, 0),
           array_remove(array[cast(newest.run_id as text), cast(ended.run_id as text),
                              cast(outcome.run_id as text), cast(completed.run_id as text),
                              cast(whole.run_id as text)], null)
    from flows f
    cross join lateral ({_OF_FLOW} {_NEWEST}) newest
    left join lateral ({_OF_FLOW} and status not in ('pending', 'running') {_NEWEST}) ended on true
    left join lateral ({_OF_FLOW} and status in ('completed', 'failed') {_NEWEST}) outcome on true
    left join lateral ({_OF_FLOW} and status = 'completed' {_NEWEST}) completed on true
    left join lateral ({_OF_FLOW} and status = 'completed'
                       and (not is_partial_range or covers_changes) {_NEWEST}) whole on true
    where f.tenant_id = :tenant_id and not f.is_deleted
"""  # noqa: S608 - constants of ours
_LIST_RANGE = sa.text(f"""{_SELECT}
    and f.instance_id > cast(:after as uuid)
    and (:until = '' or f.instance_id <= cast(nullif(:until, '') as uuid))
""")
_LIST_FLOWS = sa.text(f"""{_SELECT}
    and (f.instance_id, f.flow_kind) in
        (select * from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])))
""")  # noqa: S608 - a constant of ours
_FIRST_ID = "00000000-0000-0000-0000-000000000000"


class RunNumbers(NamedTuple):
    """The numbers of a flow's newest runs, and their ids.

    They are the newest of all, of those that ended, completed or failed, completed, and completed for all dates.
    """

    instance_id: str
    flow_kind: str
    run_number: int
    ended: int
    outcome: int
    completed: int
    full: int
    run_ids: list[str]


async def list_numbers_in_range(
    connection: Connection, tenant_id: str, after: str, until: str
) -> list[RunNumbers]:
    """Return the numbers of every flow with runs, for the instances between two ids; empty `until`: without end."""
    parameters = {"tenant_id": tenant_id, "after": after or _FIRST_ID, "until": until}
    return [RunNumbers(*row) for row in await connection.execute(_LIST_RANGE, parameters)]


async def list_numbers_of_flows(
    connection: Connection, tenant_id: str, flows: Collection[tuple[str, str]]
) -> list[RunNumbers]:
    """Return the numbers of those of the flows that have runs."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": [instance_id for instance_id, _ in flows],
        "flow_kinds": [flow_kind for _, flow_kind in flows],
    }
    return [RunNumbers(*row) for row in await connection.execute(_LIST_FLOWS, parameters)]
