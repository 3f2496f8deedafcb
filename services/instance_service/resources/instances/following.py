"""Let backtests follow their optimizers: a change that counts gives each of them a new revision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from instance_service.events import SELF
from instance_service.resources.conversion import timestamp
from instance_service.resources.dependencies import ResourceDependencies
from instance_service.resources.instances.conditions import set_blocked_from_optimizer
from instance_service.resources.instances.drafts import Draft
from instance_service.resources.instances.optimizers import counts_alike
from instance_service.resources.instances.revisions import Revision, is_same, write_revisions
from instance_service.resources.instances.tracking import newest_drafts
from instance_service.store import graph
from instance_service.store import instances as store
from optaic.instance.v1.instance_pb2 import Instance
from servicekit.database import Connection


async def follow_optimizers(
    deps: ResourceDependencies, connection: Connection, tenant_id: str, revisions: Sequence[Revision]
) -> None:
    """Write a revision of each backtest whose optimizer has changed in what counts for it; requires the tenant's lock.

    The fingerprint of its flow moves with it, so that its output is stale. A backtest that no longer satisfies the rules keeps
    its revision, and a condition says why.

    Args:
        deps: the dependencies.
        connection: its transaction has written `revisions`.
        tenant_id: the tenant.
        revisions: of instances of any kind.
    """
    changed = {
        # Its name is not said: who may read a backtest may not always read the optimizer.
        each.current.instance_id: f"its optimizer changed: {each.draft.changes}"
        for each in revisions
        if each.current.WhichOneof("spec") == "portfolio_optimizer"
        and not counts_alike(each.current, each.draft.instance)
    }
    if not changed:
        return
    because: dict[str, list[str]] = defaultdict(list)
    for backtest_id, optimizer_id in await graph.list_optimized(connection, tenant_id, list(changed)):
        because[backtest_id].append(changed[optimizer_id])
    if not because:
        return
    reasons = {backtest_id: "; ".join(parts) for backtest_id, parts in because.items()}
    locked = await store.lock_instances(connection, tenant_id, sorted(reasons))
    backtests = [Instance.FromString(snapshot) for snapshot in locked]
    drafts = await newest_drafts(deps, connection, tenant_id, backtests, reasons)
    following, blocked, now = [], {}, timestamp(deps.clock.now())
    for backtest in backtests:
        draft = drafts[backtest.instance_id]
        if not isinstance(draft, Draft):
            set_blocked_from_optimizer(backtest, draft, now)
            blocked[backtest.instance_id] = backtest.SerializeToString()
        elif not is_same(draft.instance, backtest):
            following.append(Revision(backtest, draft, reasons[backtest.instance_id]))
    await store.update_snapshots(connection, tenant_id, blocked)
    await write_revisions(deps, connection, tenant_id, SELF, following)
