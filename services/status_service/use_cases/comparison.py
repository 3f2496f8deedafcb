"""Find what is missing here, compared with what the owners list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from servicekit.comparison import Lacked
from status_service.store import boards
from status_service.use_cases.dependencies import Dependencies


async def list_wanted_instances(
    deps: Dependencies,
    tenant_id: str,
    after: str,
    until: str,
    listed: Mapping[str, tuple[int, datetime]],
) -> dict[str, Lacked]:
    """Return the instances of which the owner has other news than we, or that it no longer has; and which these are.

    `listed` are its instances after one id up to another, with their revisions and update times.
    """
    async with deps.database.read(tenant_id) as connection:
        known = await boards.list_known(connection, tenant_id, after, until, listed.keys())
    wanted: dict[str, Lacked] = {
        each: "gone" for each, ours in known.items() if not ours.is_deleted and each not in listed
    }
    for instance_id, position in listed.items():
        ours = known.get(instance_id)
        if ours is None or ours.lacks(*position):
            wanted[instance_id] = position
    return wanted


async def list_wanted_flows(
    deps: Dependencies, tenant_id: str, listed: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], Lacked]:
    """Return the flows with a later announced revision than the known one, and that revision."""
    instance_ids = {instance_id for instance_id, _ in listed}
    async with deps.database.read(tenant_id) as connection:
        known = await boards.list_flow_revisions(connection, tenant_id, instance_ids)
        deleted = await boards.list_deleted(connection, tenant_id, instance_ids)
    return {
        key: revision
        for key, revision in listed.items()
        if key[0] not in deleted and known.get(key, 0) < revision
    }
