"""Record what the reconciler does to instances: moves to newer versions, and what outside systems hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instance_service.events import SELF
from instance_service.resources.conversion import timestamp
from instance_service.resources.instances import verdicts
from instance_service.resources.instances.following import follow_optimizers
from instance_service.resources.instances.revisions import write_revisions
from instance_service.resources.instances.tracking import load_standing, moves_of, newest_drafts
from instance_service.resources.instances.verdicts import Found
from instance_service.store import instances as store
from instance_service.store import queue
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance
from servicekit import off_loop, outbox
from servicekit.database import lock_tenant

_REPEAT_SECONDS = 0.5


async def move_to_newest(
    deps: Dependencies, tenant_id: str, instances: Mapping[str, Instance]
) -> dict[str, Instance]:
    """Move instances that are behind the newest versions they track, and update the conditions on their versions.

    An instance that does not fit the newest version keeps its own, and a condition says why.
    The changed instances are returned.
    """
    async with deps.database.read(tenant_id) as connection:
        standing = await load_standing(connection, tenant_id, list(instances))
    now = timestamp(deps.clock.now())
    due = standing.due(instances, now)
    if not due:
        return {}
    async with deps.database.transaction(tenant_id) as connection:
        await lock_tenant(connection, tenant_id)
        current = map(Instance.FromString, await store.lock_instances(connection, tenant_id, sorted(due)))
        live = [instance for instance in current if instance.state != INSTANCE_STATE_DELETING]
        lagging = [one for one in live if one.instance_id in standing.lagging]
        drafts = await newest_drafts(deps, connection, tenant_id, lagging)
        moves = moves_of(live, drafts, standing, now)
        snapshots = {key: instance.SerializeToString() for key, instance in moves.noted.items()}
        await store.update_snapshots(connection, tenant_id, snapshots)
        await write_revisions(deps, connection, tenant_id, SELF, moves.revisions)
        await follow_optimizers(deps, connection, tenant_id, moves.revisions)
    return moves.changed()


async def record_verdicts(deps: Dependencies, tenant_id: str, found: Sequence[Found]) -> set[str]:
    """Write verdicts on instances as they were observed; return those for which nothing is left to do."""
    done = verdicts.settled(found)
    now = timestamp(deps.clock.now())
    changing = verdicts.changing(found, now)
    if not changing:
        return done
    ids = [observed.instance_id for observed, _ in changing]
    async with deps.database.transaction(tenant_id) as connection:
        snapshots = await store.lock_instances(connection, tenant_id, ids)

        def judge() -> verdicts.Judgement:
            present = {one.instance_id: one for one in map(Instance.FromString, snapshots)}
            return verdicts.judge(deps.events(tenant_id), changing, present, done, now)

        judgement = await off_loop.run_if_large(sum(map(len, snapshots)), judge)
        await verdicts.write_states(connection, tenant_id, judgement.changed)
        # Prevents a replica that saw an instance before its first problem from declaring that nothing is left to do.
        await queue.repeat(connection, tenant_id, judgement.complaining, _REPEAT_SECONDS)
        await outbox.append(connection, judgement.news)
    for instance_id in ids:
        deps.activated.notify(instance_id)
    return done
