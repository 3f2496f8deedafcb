"""The queries that choose the flows of a plan; each returns flow ids, and whether the flow is waiting for a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import sqlalchemy as sa

from lineage_service.store.reads import in_slices, limited
from servicekit.database import Connection

# A flow is waiting for a run unless it is READY; the words of lineage_service.domain.flows.word_of.
_IS_WAITING = "not (f.is_fresh and f.outcome = 'succeeded' and f.run_number <= f.ended_run_number)"
_EXISTS = """
    f.tenant_id = :tenant_id and f.is_defined and exists (
        select from instances i where i.tenant_id = f.tenant_id and i.instance_id = f.instance_id and not i.is_deleted)
"""
_FIND = sa.text(f"""
    select f.flow_id, {_IS_WAITING}
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as d (instance_id, flow_kind)
    join flows f on f.instance_id = d.instance_id and f.flow_kind = d.flow_kind and {_EXISTS}
""")  # noqa: S608 - constants of ours
_FIND_OF = sa.text(f"""
    select f.flow_id, {_IS_WAITING} from flows f
    where f.instance_id = any(cast(:instance_ids as uuid[])) and {_EXISTS}
""")  # noqa: S608 - constants of ours
_LIST = limited(f"""
    select f.flow_id, {_IS_WAITING} from flows f where f.flow_id = any(cast(:flow_ids as bigint[])) and {_EXISTS}
""")  # noqa: S608 - constants of ours
_LIST_ALL = sa.text(f"""
    select f.flow_id, {_IS_WAITING} from flows f
    where {_EXISTS} and (not :only_waiting or {_IS_WAITING}) limit :most
""")  # noqa: S608 - constants of ours
_GET_REVISION = sa.text("select revision from lineage_revisions where tenant_id = :tenant_id")


async def find_flows(
    connection: Connection, tenant_id: str, keys: Sequence[tuple[str, str]]
) -> dict[int, bool]:
    """Return those of the flows (instance id, flow kind) that exist."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": [instance_id for instance_id, _ in keys],
        "flow_kinds": [flow_kind for _, flow_kind in keys],
    }
    return _states(await connection.execute(_FIND, parameters)) if keys else {}


async def find_flows_of(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> dict[int, bool]:
    """Return all flows of those of the instances that exist."""
    parameters = {"tenant_id": tenant_id, "instance_ids": list(instance_ids)}
    return _states(await connection.execute(_FIND_OF, parameters)) if instance_ids else {}


async def list_states(connection: Connection, tenant_id: str, flow_ids: str) -> dict[int, bool]:
    """Return those of the flows that exist; their ids are the text of an array."""
    parameters = {"tenant_id": tenant_id, "flow_ids": flow_ids}
    return {row[0]: row[1] async for row in in_slices(connection, _LIST, parameters)}


async def list_flows(
    connection: Connection, tenant_id: str, *, only_waiting: bool, most: int
) -> dict[int, bool]:
    """Return all flows of a tenant, or all that wait for a run; one more than `most` if there are more."""
    parameters = {"tenant_id": tenant_id, "only_waiting": only_waiting, "most": most + 1}
    return _states(await connection.execute(_LIST_ALL, parameters))


async def get_revision(connection: Connection, tenant_id: str) -> int:
    """Return the tenant's lineage revision; 0 if nothing has happened yet."""
    return int((await connection.execute(_GET_REVISION, {"tenant_id": tenant_id})).scalar() or 0)


def _states(rows: Iterable[sa.Row[tuple[int, bool]]]) -> dict[int, bool]:
    return {row[0]: row[1] for row in rows}
