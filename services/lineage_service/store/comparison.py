"""The queries that compare the stored instances, flows and runs with what other services list."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from lineage_service.domain.keys import FlowKey
from servicekit.database import Connection

_RANGE = """
    tenant_id = :tenant_id and instance_id > cast(:after as uuid)
    and (:until = '' or instance_id <= cast(nullif(:until, '') as uuid))
"""
# Tombstones are kept forever, so only those that were asked about are returned.
_LIST_INSTANCES = sa.text(f"""
    select cast(instance_id as text), revision, is_deleted, policy_unknown_since is not null from instances
    where {_RANGE} and (not is_deleted or instance_id = any(cast(:instance_ids as uuid[])))
      and kind <> all(cast(:component_kinds as smallint[]))
""")  # noqa: S608 - a constant of ours
_LIST_FLOWS = sa.text(f"""
    select cast(instance_id as text), flow_kind, revision from flows where {_RANGE} and is_defined
""")  # noqa: S608 - a constant of ours
_LIST_RUN_NUMBERS = sa.text("""
    select cast(d.instance_id as text), d.flow_kind, coalesce(f.run_number, 0), coalesce(f.ended_run_number, 0),
           coalesce(f.outcome_run_number, 0), coalesce(f.completed_run_number, 0),
           coalesce(f.full_run_number, f.completed_run_number, 0)
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as d(instance_id, flow_kind)
    left join flows f on f.tenant_id = :tenant_id and f.instance_id = d.instance_id and f.flow_kind = d.flow_kind
    where not exists (select from instances i where i.tenant_id = :tenant_id and i.instance_id = d.instance_id
                      and i.is_deleted)
""")
_FIRST_ID = "00000000-0000-0000-0000-000000000000"


class RunNumbers(NamedTuple):
    """The newest run numbers of a flow: of any run, and of runs that reached a certain end.

    `outcome` is the newest run that completed or failed; `full` is the newest completed run of all dates.
    """

    run_number: int
    ended: int
    outcome: int
    completed: int
    full: int


class KnownInstance(NamedTuple):
    """An instance as it is stored here; one stored by an earlier release may lack its freshness policy."""

    revision: int
    is_deleted: bool
    lacks_policy: bool


async def list_instances(
    connection: Connection,
    tenant_id: str,
    after: str,
    until: str,
    instance_ids: Sequence[str],
    component_kinds: Sequence[int],
) -> dict[str, KnownInstance]:
    """Return the instances in a range of ids; an empty bound means no limit.

    Instances of the component kinds are left out, because instance-service does not list them.
    """
    parameters = {
        **_scope(tenant_id, after, until),
        "instance_ids": list(instance_ids),
        "component_kinds": list(component_kinds),
    }
    return {row[0]: KnownInstance(*row[1:]) for row in await connection.execute(_LIST_INSTANCES, parameters)}


async def list_flows(
    connection: Connection, tenant_id: str, after: str, until: str
) -> list[tuple[FlowKey, int]]:
    """Return the flows of the instances in a range of ids, each with the revision that was last published."""
    rows = await connection.execute(_LIST_FLOWS, _scope(tenant_id, after, until))
    return [(FlowKey(row[0], row[1]), row[2]) for row in rows]


async def list_run_numbers(
    connection: Connection, tenant_id: str, keys: Collection[FlowKey]
) -> dict[FlowKey, RunNumbers]:
    """Return the newest run numbers of the flows; 0 for unknown flows; flows of deleted instances are left out."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": [key.instance_id for key in keys],
        "flow_kinds": [key.flow_kind for key in keys],
    }
    rows = await connection.execute(_LIST_RUN_NUMBERS, parameters)
    return {FlowKey(row[0], row[1]): RunNumbers(*row[2:]) for row in rows}


def _scope(tenant_id: str, after: str, until: str) -> dict[str, object]:
    return {"tenant_id": tenant_id, "after": after or _FIRST_ID, "until": until}
