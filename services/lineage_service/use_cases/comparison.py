"""Find what is missing here, and publish again what status-service lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lineage_service.domain.keys import FlowKey
from lineage_service.store import comparison as store
from lineage_service.store import reads
from lineage_service.store.comparison import RunNumbers
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.facts import publish_states
from optaic.instance.v1 import instance_pb2
from optaic.rules.kinds import COMPONENT_KINDS
from servicekit.comparison import Lacked
from servicekit.database import lock_tenant
from servicekit.enums import enum_number

_COMPONENT_KINDS = tuple(enum_number(instance_pb2.InstanceKind, kind) for kind in COMPONENT_KINDS)


class Listed(NamedTuple):
    """An instance as instance-service lists it."""

    revision: int
    is_deleting: bool


async def list_wanted_instances(
    deps: Dependencies, tenant_id: str, after: str, until: str, listed: Mapping[str, Listed]
) -> dict[str, Lacked]:
    """Return the instances that instance-service must publish again.

    They are newer there, being deleted there, gone, or their freshness policies were never received here.
    """
    async with deps.database.read(tenant_id) as connection:
        known = await store.list_instances(
            connection, tenant_id, after, until, list(listed), _COMPONENT_KINDS
        )
    gone = {each: "gone" for each, one in known.items() if not one.is_deleted and each not in listed}
    # An instance being deleted may still wait for the event which says that lineage has cleared it.
    behind = {
        instance_id: instance
        for instance_id, instance in listed.items()
        if instance.is_deleting
        or instance_id not in known
        or known[instance_id].revision < instance.revision
        or known[instance_id].lacks_policy
    }
    return {**gone, **behind}


async def list_flows(deps: Dependencies, tenant_id: str, after: str, until: str) -> list[tuple[FlowKey, int]]:
    """Return the flows of the instances in a range of ids, each with the revision that was last published."""
    async with deps.database.read(tenant_id) as connection:
        return await store.list_flows(connection, tenant_id, after, until)


async def list_wanted_runs(
    deps: Dependencies, tenant_id: str, listed: Mapping[FlowKey, RunNumbers]
) -> dict[FlowKey, Lacked]:
    """Return the flows for which run-service lists newer runs than are stored here, with the numbers of those runs."""
    async with deps.database.read(tenant_id) as connection:
        known = await store.list_run_numbers(connection, tenant_id, list(listed))
    lacked = {
        key: tuple(theirs if ours < theirs else 0 for ours, theirs in zip(numbers, listed[key], strict=True))
        for key, numbers in known.items()
    }
    return {key: numbers for key, numbers in lacked.items() if any(numbers)}


async def publish_again(deps: Dependencies, tenant_id: str, keys: Sequence[FlowKey]) -> None:
    """Publish the current state of flows again, at a new lineage revision."""
    async with deps.database.transaction(tenant_id) as connection:
        await lock_tenant(connection, tenant_id)
        ids = await reads.find_ids(connection, tenant_id, keys)
        await publish_states(deps, connection, tenant_id, set(ids.values()))
