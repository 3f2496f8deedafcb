"""Apply events: store them in the caller's transaction and publish the status changes that follow.

The resulting state depends only on the set of events: neither their order nor their repetition matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from lineage_service import events
from lineage_service.domain.causes import Cause, Causes
from lineage_service.domain.flows import Change, Move
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.probes import ProbeFact
from lineage_service.domain.runs import Phase, Progress, RunFact, advance
from lineage_service.domain.snapshots import Snapshot
from lineage_service.store import acceptance, edges, flows, policies, probes, propagation, reads, versions
from lineage_service.use_cases.causes import find_spread_causes, find_state_causes
from lineage_service.use_cases.dependencies import Dependencies
from optaic.lineage.v1.lineage_events_pb2 import LineageCleared
from servicekit import outbox
from servicekit.database import Connection, lock_tenant
from servicekit.events import BATCH, make_event

# A propagation carries its roots to every flow that it reaches, so its cost is bounded by roots times flows.
_FACTS_AT_ONCE = 16


async def apply_snapshots(
    deps: Dependencies, connection: Connection, tenant_id: str, snapshots: Sequence[Snapshot]
) -> None:
    """Apply the newest revision of each instance; older and repeated revisions change nothing."""
    await lock_tenant(connection, tenant_id)
    for start in range(0, len(snapshots), _FACTS_AT_ONCE):
        part = snapshots[start : start + _FACTS_AT_ONCE]
        revision = await flows.next_revision(
            connection, tenant_id, deps.clock.now()
        )  # two parts may concern the same flow
        touched = await _define(deps, connection, tenant_id, _newest(part))
        change = _Change(deps, connection, tenant_id, revision, _event_ids(part))
        await change.publish(touched, [], [events.ChangeGroup()], {}, is_redefined=True)
        cleared = dict.fromkeys(item.instance_id for item in part if item.is_deleted)
        await outbox.append(
            connection,
            [
                make_event(
                    events.SERVICE,
                    tenant_id,
                    LineageCleared(instance_id=instance_id),
                    "cleared",
                    instance_id,
                    deps.clock,
                    deps.ids,
                )
                for instance_id in cleared
            ],
        )


def _newest(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    newest: dict[str, Snapshot] = {}
    for snapshot in snapshots:
        known = newest.get(snapshot.instance_id)
        if known is None or (snapshot.is_deleted, snapshot.revision) > (known.is_deleted, known.revision):
            newest[snapshot.instance_id] = snapshot
    return [newest[instance_id] for instance_id in sorted(newest)]


async def _define(
    deps: Dependencies, connection: Connection, tenant_id: str, snapshots: Sequence[Snapshot]
) -> set[int]:
    """Store the snapshots that are newer than those stored; return the ids of the flows that they touch."""
    applied_ids = await flows.upsert_instances(connection, tenant_id, snapshots)
    applied = [snapshot for snapshot in snapshots if snapshot.instance_id in applied_ids]
    if not applied:
        return set()
    live = [snapshot for snapshot in applied if not snapshot.is_deleted]
    upstreams = {
        FlowKey(snapshot.instance_id, flow.flow_kind): flow.upstreams
        for snapshot in live
        for flow in snapshot.flows
    }
    keys = {*upstreams, *(edge.upstream for specs in upstreams.values() for edge in specs)}
    ids = await flows.ensure_flows(connection, tenant_id, keys)
    touched = await flows.define_flows(connection, tenant_id, applied)
    connected = {flow_id: upstreams.get(key, ()) for key, flow_id in ids.items() if key in upstreams}
    # A flow that the newest revision no longer defines loses all its upstreams.
    connected.update({flow_id: () for flow_id in touched if flow_id not in connected})
    if connected:
        await edges.connect(connection, tenant_id, connected, ids)
    judged = {
        ids[FlowKey(snapshot.instance_id, flow.flow_kind)]: flow.policy
        for snapshot in live
        for flow in snapshot.flows
        if flow.policy is not None
    }
    await policies.put_policies(connection, tenant_id, applied_ids, touched, judged, deps.clock.now())
    deleted_instances = {snapshot.instance_id for snapshot in applied if snapshot.is_deleted}
    if deleted_instances:
        rows = await reads.list_flows(connection, tenant_id, touched)
        deleted = [flow.flow_id for flow in rows if flow.instance_id in deleted_instances]
        await flows.forget_flows(connection, tenant_id, deleted)
    return set(touched)


async def apply_run_facts(
    deps: Dependencies, connection: Connection, tenant_id: str, facts: Sequence[RunFact]
) -> None:
    """Apply run events; older and repeated events, and events of deleted instances, change nothing."""
    await lock_tenant(connection, tenant_id)
    # Only a completed run can change freshness.
    moves_freshness = any(fact.phase is Phase.COMPLETED for fact in facts)
    size = _FACTS_AT_ONCE if moves_freshness else len(facts)
    for start in range(0, len(facts), size):
        part = facts[start : start + size]
        revision, found = await flows.start_revision(
            connection, tenant_id, deps.clock.now(), _keys_of(part)
        )  # two parts may concern the same flow
        deleted = {key for key, each in found.items() if each.is_deleted}
        # Refused runs change nothing, but the published message still lists their events as applied.
        live = [fact for fact in part if fact.run_number and fact.flow not in deleted]
        if missing := {key for key in _keys_of(live) if not found[key].flow_id}:
            await flows.ensure_flows(connection, tenant_id, missing)
            found |= await flows.find_progress(connection, tenant_id, missing)
        ids = {key: each.flow_id for key, each in found.items()}
        known = {found[fact.flow].flow_id: found[fact.flow].progress for fact in live}
        touched, moves = await _advance(deps, connection, tenant_id, live, ids, known)
        change = _Change(deps, connection, tenant_id, revision, _event_ids(part))
        # A flow with several runs in one part is published in the group of the newest run.
        groups = {fact.run_id: events.ChangeGroup(run_id=fact.run_id) for fact in part}
        owners = {ids[fact.flow]: groups[fact.run_id] for fact in sorted(live, key=_run_number)}
        await change.publish(touched, moves, list(groups.values()), owners, moves_freshness=moves_freshness)


def _keys_of(facts: Iterable[RunFact]) -> set[FlowKey]:
    """Return the flows of runs, and those that the runs have read."""
    return {key for fact in facts for key in (fact.flow, *(item.upstream for item in fact.inputs))}


def _run_number(fact: RunFact) -> int:
    return fact.run_number


def _event_ids(items: Iterable[Snapshot | RunFact | ProbeFact]) -> list[str]:
    return [item.event_id for item in items if item.event_id]


async def _advance(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    facts: Sequence[RunFact],
    ids: Mapping[FlowKey, int],
    known: Mapping[int, Progress],
) -> tuple[set[int], list[Move]]:
    """Store the progress and the outputs of runs; return the ids of the touched flows, and the version moves."""
    now = dict(known)
    newest_full: dict[int, RunFact] = {}
    for fact in facts:
        flow_id = ids[fact.flow]
        before, now[flow_id] = now[flow_id], advance(now[flow_id], fact)
        if now[flow_id].full_run_number != before.full_run_number:
            newest_full[flow_id] = fact
    changed = {flow_id: now[flow_id] for flow_id in known if now[flow_id] != known[flow_id]}
    ended = await flows.set_progress(connection, tenant_id, changed)
    if ended:
        await acceptance.forget_versions(connection, tenant_id, ended)
        await edges.prune(connection, tenant_id, ended)
    completed = [(ids[fact.flow], fact) for fact in facts if fact.phase is Phase.COMPLETED]
    moves: list[Move] = []
    resolved: list[int] = []
    if completed:
        now_time = deps.clock.now()
        moves, resolved, late = await versions.add_versions(connection, tenant_id, completed, now_time)
        if late:  # since another time, which the sweep finds out
            await policies.judge_again(connection, tenant_id, late, now_time)
    if newest_full:
        inputs = {flow_id: fact.inputs for flow_id, fact in newest_full.items()}
        await edges.consume(connection, tenant_id, inputs, ids)
    return {*changed, *resolved, *(move.flow_id for move in moves)}, moves


async def apply_probes(
    deps: Dependencies, connection: Connection, tenant_id: str, facts: Sequence[ProbeFact]
) -> None:
    """Apply what probes of sources have found; older and repeated facts, and facts of unknown flows, change nothing."""
    await lock_tenant(connection, tenant_id)
    revision = await flows.next_revision(connection, tenant_id, deps.clock.now())
    newest: dict[FlowKey, ProbeFact] = {}
    for fact in sorted(facts, key=lambda fact: fact.probe_number):
        newest[fact.flow] = fact
    touched = await probes.put_probes(connection, tenant_id, list(newest.values()))
    change = _Change(deps, connection, tenant_id, revision, _event_ids(facts))
    await change.publish(touched, [], [events.ChangeGroup()], {})


async def apply_own_causes(
    deps: Dependencies, connection: Connection, tenant_id: str, flow_ids: set[int], moves: Sequence[Move] = ()
) -> None:
    """Propagate that causes of the flows' own came or went, without a run; the caller holds the tenant's lock."""
    revision = await flows.next_revision(connection, tenant_id, deps.clock.now())
    change = _Change(deps, connection, tenant_id, revision, [])
    await change.publish(flow_ids, moves, [events.ChangeGroup()], {})


async def publish_states(
    deps: Dependencies, connection: Connection, tenant_id: str, flow_ids: set[int]
) -> None:
    """Publish the current state of flows again; the caller holds the tenant's lock."""
    revision = await flows.next_revision(connection, tenant_id, deps.clock.now())
    change = _Change(deps, connection, tenant_id, revision, [])
    await change.publish(flow_ids, [], [events.ChangeGroup()], {}, moves_freshness=False)


@dataclass(frozen=True)
class _Change:
    """One propagation: it starts at the touched flows and changes every flow that depends on them."""

    deps: Dependencies
    connection: Connection
    tenant_id: str
    revision: int
    event_ids: Sequence[str]

    async def publish(
        self,
        touched: set[int],
        moves: Sequence[Move],
        groups: Sequence[events.ChangeGroup],
        owners: dict[int, events.ChangeGroup],
        *,
        moves_freshness: bool = True,
        is_redefined: bool = False,
    ) -> None:
        """Propagate freshness, and append the messages to the outbox.

        `owners` maps each flow that a run touched to the group of that run. A change without an owner goes into the
        last group: with several runs at once, the run that caused it cannot be determined.
        """
        if not touched and not self.event_ids:
            return
        causes = Causes()
        if touched:
            reaches: list[propagation.Reach] = []
            changes: list[Change] = []
            redefined = touched if is_redefined else {move.flow_id for move in moves}
            if not moves_freshness:
                changes += await self._touch(touched)
            else:
                changed, reaches = await propagation.touch_and_find_stale(
                    self.connection, self.tenant_id, touched, moves, self.revision
                )
                changes += changed
                changes += await self._set_fresh(_union(reaches), is_fresh=False)
                fresh = await self._find_fresh(
                    touched.intersection(change.flow_id for change in changes if not change.is_fresh)
                )
                changes += await self._set_fresh(propagation.format_ids(fresh), is_fresh=True)
                redefined = redefined.union(fresh)
            # Where a flow was written twice, the last state counts.
            states = {change.flow_id: change for change in changes}
            spread = await find_spread_causes(self.connection, self.tenant_id, states, touched, moves)
            readers = await self._list_dependants(redefined)
            states.update((change.flow_id, change) for change in await self._touch(readers))
            published = {flow_id: change for flow_id, change in states.items() if change.is_defined}
            stale = {flow_id for flow_id, change in published.items() if not change.is_fresh}
            shown = await self._find_state_causes(stale.intersection(touched | readers))
            causes = replace(spread, lists={**spread.lists, **shown})
            _assign(published, reaches, groups, owners)
        messages = events.change_messages(self.revision, groups, causes, self.event_ids)
        await outbox.append(
            self.connection,
            [
                make_event(
                    events.SERVICE,
                    self.tenant_id,
                    message,
                    "flow_statuses_changed",
                    BATCH,
                    self.deps.clock,
                    self.deps.ids,
                )
                for message in messages
            ],
        )

    async def _touch(self, flow_ids: AbstractSet[int]) -> list[Change]:
        if not flow_ids:
            return []
        return await propagation.touch(self.connection, self.tenant_id, flow_ids, self.revision)

    async def _find_fresh(self, stale: AbstractSet[int]) -> list[int]:
        if not stale:
            return []
        return await propagation.find_fresh(self.connection, self.tenant_id, stale)

    async def _find_state_causes(self, stale: AbstractSet[int]) -> dict[int, list[Cause]]:
        if not stale:
            return {}
        return await find_state_causes(self.connection, self.tenant_id, stale)

    async def _list_dependants(self, flow_ids: AbstractSet[int]) -> set[int]:
        """Return the direct dependants that were not fresh before, since the flows changed may be among their causes."""
        if not flow_ids:
            return set()
        return await propagation.list_dependants(self.connection, self.tenant_id, flow_ids, self.revision)

    async def _set_fresh(self, flow_ids: str, *, is_fresh: bool) -> list[Change]:
        if flow_ids == propagation.NO_IDS:
            return []
        return await propagation.set_fresh(
            self.connection, self.tenant_id, flow_ids, is_fresh=is_fresh, revision=self.revision
        )


def _union(reaches: Sequence[propagation.Reach]) -> str:
    """Return all ids as the text of an array; a flow below several roots appears several times."""
    return "{" + ",".join(reach.flow_ids[1:-1] for reach in reaches) + "}"


def _assign(
    published: Mapping[int, Change],
    reaches: Sequence[propagation.Reach],
    groups: Sequence[events.ChangeGroup],
    owners: dict[int, events.ChangeGroup],
) -> None:
    """Put every change into the group of the run that caused it."""
    group_of: dict[int, events.ChangeGroup] = {}
    for reach in reaches:
        group = owners.get(reach.root, groups[-1])
        group.affected_downstream += reach.affected
        if len(groups) > 1:
            for flow_id in propagation.parse_ids(reach.flow_ids):
                group_of.setdefault(flow_id, group)
    group_of.update(owners)
    for flow_id, change in published.items():
        group_of.get(flow_id, groups[-1]).changes.append(change)
