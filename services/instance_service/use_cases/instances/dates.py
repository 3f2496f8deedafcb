"""Say on instances whether the newest output lets their freshness policies be judged; this makes no revision."""

from __future__ import annotations

from collections.abc import Iterable

from instance_service.resources.conversion import timestamp
from instance_service.resources.instances.freshness import (
    NOT_JUDGED,
    clear_missing_date,
    is_judged,
    set_missing_date,
)
from instance_service.store import instances as store
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules.columns import DATE
from optaic.run.v1.run_pb2 import Run
from servicekit.database import Connection


async def note_missing_dates(
    deps: Dependencies, connection: Connection, tenant_id: str, completed: Iterable[Run]
) -> None:
    """Set or clear the condition of the instances whose runs reported the columns of their output."""
    has_date: dict[str, bool] = {}
    for run in sorted(completed, key=lambda run: run.run_number):
        if run.pipeline.HasField("output_profile"):
            columns = {column.name for column in run.pipeline.output_profile.columns}
            has_date[run.instance_id] = DATE in columns
    if not has_date:
        return
    noted = await store.list_with_condition(connection, tenant_id, list(has_date), NOT_JUDGED)
    wanted = sorted(each for each, is_there in has_date.items() if is_there == (each in noted))
    if not wanted:
        return
    now = timestamp(deps.clock.now())
    changed: dict[str, bytes] = {}
    for instance in map(Instance.FromString, await store.lock_instances(connection, tenant_id, wanted)):
        if has_date[instance.instance_id]:
            clear_missing_date(instance)
        elif is_judged(instance):
            set_missing_date(instance, now)
        else:
            continue
        changed[instance.instance_id] = instance.SerializeToString()
    await store.update_snapshots(connection, tenant_id, changed)
