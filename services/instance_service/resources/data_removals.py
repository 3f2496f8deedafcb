"""Record which data of deleted instances must be removed, and from when a worker may remove it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Any

import structlog

from instance_service.domain.data_removal import remove_time
from instance_service.resources.conversion import timestamp
from instance_service.resources.dependencies import ResourceDependencies
from instance_service.store import data_removals as store
from optaic.instance.v1.data_removal_service_pb2 import DataRemoval, UsedStore
from optaic.instance.v1.instance_pb2 import Instance
from servicekit.database import Connection

_MOST_BYTES = (
    256 * 1024
)  # limit for the stores of one instance: a client may configure a new store every minute
_log = structlog.get_logger(__name__)


async def remember_data(
    deps: ResourceDependencies, connection: Connection, tenant_id: str, gone: Sequence[Instance]
) -> None:
    """Record which instances' data must be removed, in the transaction that removes the instances."""
    ids = [instance.instance_id for instance in gone]
    with_output = await store.list_with_output(connection, tenant_id, ids)
    used = _stores_by_instance(await store.list_used_stores(connection, tenant_id, ids))
    now = deps.clock.now()
    rows = [
        {
            "tenant_id": tenant_id,
            "instance_id": instance.instance_id,
            "delete_time": now,
            "due_time": now,
            "attempts": 0,
            "problem": "",
            "snapshot": DataRemoval(
                instance_id=instance.instance_id,
                name=instance.name,
                kind=instance.kind,
                project_id=instance.project_id,
                stores=_newest(instance, used.get(instance.instance_id, {})),
                # What another system wrote was never the instance's own.
                has_output=instance.instance_id in with_output
                and not any(flow.is_external for flow in instance.flows),
            ).SerializeToString(),
        }
        for instance in gone
    ]
    await store.insert_removals(connection, rows)


def _stores_by_instance(found: Iterable[tuple[str, bytes]]) -> dict[str, dict[bytes, UsedStore]]:
    """Return the distinct stores that each instance has used, ordered by their last use."""
    stores: dict[str, dict[bytes, UsedStore]] = defaultdict(dict)
    for instance_id, snapshot in found:
        component = Instance.FromString(snapshot)
        used = UsedStore(definition_version_id=component.definition_version_id, config=component.config)
        text = used.SerializeToString(deterministic=True)
        stores[instance_id].pop(text, None)  # reinsert it, so that the order is that of the last use
        stores[instance_id][text] = used
    return stores


def _newest(instance: Instance, used: dict[bytes, UsedStore]) -> Sequence[UsedStore]:
    """Return the most recently used stores of an instance, up to the size limit; `used` starts with the oldest."""
    kept: list[UsedStore] = []
    total = 0
    for text, store_used in reversed(used.items()):
        total += len(text)
        if kept and total > _MOST_BYTES:
            _log.warning(
                "too many stores: data that the oldest ones keep outside the instance's folder is not removed",
                instance_id=instance.instance_id,
                stores=len(used),
                remembered=len(kept),
            )
            break
        kept.append(store_used)
    return kept[::-1]


def removal_of(row: Any, grace_seconds: float) -> DataRemoval:
    """Convert a stored removal to a message that includes the earliest time at which it may run."""
    removal = DataRemoval.FromString(row.snapshot)
    removal.delete_time.CopyFrom(timestamp(row.delete_time.astimezone(UTC)))
    earliest = remove_time(row.delete_time, row.due_time, grace_seconds)
    removal.remove_time.CopyFrom(timestamp(earliest.astimezone(UTC)))
    removal.attempts, removal.problem = row.attempts, row.problem
    return removal
