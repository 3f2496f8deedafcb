"""Writing changed instances as new revisions, any number at once, and moving those that follow a definition."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from instance_service.domain.paths import shortest_cycle
from instance_service.events import SELF
from instance_service.resources.conversion import timestamp
from instance_service.resources.instances.conditions import FOLLOWS_NEWEST, say_outdated, say_stuck, withdraw
from instance_service.resources.instances.drafts import (
    Draft,
    Pending,
    complete,
    gather,
    is_same,
    prepare,
    stamp,
)
from instance_service.resources.instances.upstreams import named_upstreams
from instance_service.store import following, graph, queue
from instance_service.store import instances as store
from instance_service.store.tables import Connection
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.rows import Rows, rows_of
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance
from servicekit import outbox
from servicekit.database import lock_tenant
from servicekit.errors import (
    AlreadyExistsError,
    DomainError,
    FailedPreconditionError,
    FieldViolation,
    PreconditionViolation,
)


@dataclass(frozen=True)
class Change:
    """What an instance is, what it is to be, and why."""

    current: Instance
    draft: Draft
    reason: str


async def write_changes(
    deps: Dependencies, connection: Connection, tenant_id: str, author: str, changes: Sequence[Change]
) -> None:
    """Write new revisions, with those components that differ; under the tenant's lock.

    The drafts are stamped in place. Every change must differ from what is there.

    Raises:
        AlreadyExistsError: A name is taken.
        FailedPreconditionError: A cycle would close.
    """
    if not changes:
        return
    components = [item for change in changes for item in change.draft.components]
    known = await store.get_snapshots(connection, tenant_id, [item.instance_id for item in components])
    rows: Rows = defaultdict(list)
    for change in changes:
        draft = change.draft
        if draft.instance.name != change.current.name:
            await check_name(connection, tenant_id, draft.instance)
        changed = [draft.instance]
        for component in draft.components:
            previous = Instance.FromString(known[component.instance_id])
            if is_same(component, previous):
                component.CopyFrom(previous)
            else:
                stamp(deps, component, previous)
                changed.append(component)
        stamp(deps, draft.instance, change.current)
        for table, added in rows_of(tenant_id, draft, changed, author, change.reason).items():
            rows[table].extend(added)
    instances = [change.draft.instance for change in changes]
    ids = [item.instance_id for item in (*instances, *components)]
    await store.replace_instances(connection, tenant_id, ids, rows)
    for change in changes:
        if _edges(change.draft.instance) != _edges(change.current):
            await _check_cycle(connection, tenant_id, change.draft.instance)
    await queue.enqueue(connection, tenant_id, [instance.instance_id for instance in instances])
    events = deps.events(tenant_id)
    await outbox.append(
        connection, [events.updated(change.draft.instance, author, change.reason) for change in changes]
    )


async def follow_newest(
    deps: Dependencies, tenant_id: str, instances: Mapping[str, Instance]
) -> dict[str, Instance]:
    """Move those that follow newest versions and lag behind, and let all say what is to say about their versions.

    Who does not fit the newest stays where it is and says why. Returned are those that differ now.
    """
    outdated: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    async with deps.database.read(tenant_id) as connection:
        rows = await following.list_remarkable(connection, tenant_id, list(instances))
    lagging = {row.instance_id for row in rows if row.lags}
    for row in rows:
        outdated[row.instance_id].append((row.name, row.version, row.state))
    now = timestamp(deps.clock.now())

    def noted(instance: Instance) -> Instance:
        result = Instance()
        result.CopyFrom(instance)
        say_outdated(result, outdated[instance.instance_id], now)
        if instance.instance_id not in lagging:
            withdraw(result, FOLLOWS_NEWEST)
        return result

    due = lagging | {
        key
        for key, instance in instances.items()
        if (key in outdated or instance.conditions) and noted(instance) != instance
    }
    if not due:
        return {}
    async with deps.database.transaction(tenant_id) as connection:
        await lock_tenant(connection, tenant_id)
        current = map(Instance.FromString, await store.lock_instances(connection, tenant_id, sorted(due)))
        live = [instance for instance in current if instance.state != INSTANCE_STATE_DELETING]
        drafts = await _newest_drafts(
            deps, connection, tenant_id, [one for one in live if one.instance_id in lagging]
        )
        changes: list[Change] = []
        said: dict[str, Instance] = {}
        for instance in live:
            draft = drafts.get(instance.instance_id)
            if isinstance(draft, Draft) and not is_same(draft.instance, instance):
                changes.append(Change(instance, draft, f"follows newest versions: {draft.changes}"))
                continue
            result = draft.instance if isinstance(draft, Draft) else noted(instance)
            if isinstance(draft, DomainError):
                say_stuck(result, draft, now)
            if list(result.conditions) != list(instance.conditions):
                said[instance.instance_id] = result
        snapshots = {key: instance.SerializeToString() for key, instance in said.items()}
        await store.update_snapshots(connection, tenant_id, snapshots)
        await write_changes(deps, connection, tenant_id, SELF, changes)
    return said | {change.current.instance_id: change.draft.instance for change in changes}


async def _newest_drafts(
    deps: Dependencies, connection: Connection, tenant_id: str, instances: Sequence[Instance]
) -> dict[str, Draft | DomainError]:
    """Return by id what each would be with the newest versions, or why it cannot."""

    def prepare_all() -> list[Pending]:
        return [prepare(deps, instance, instance) for instance in instances]

    # A hundred of them against large schemas take a while: the loop has other callers.
    pending = await asyncio.to_thread(prepare_all)
    facts = await gather(connection, tenant_id, pending)

    def complete_all() -> dict[str, Draft | DomainError]:
        result: dict[str, Draft | DomainError] = {}
        for one in pending:
            try:
                result[one.instance.instance_id] = complete(tenant_id, one, facts)
            except DomainError as error:
                result[one.instance.instance_id] = error
        return result

    return await asyncio.to_thread(complete_all)


async def check_name(connection: Connection, tenant_id: str, instance: Instance) -> None:
    """Refuse a name that another live instance of the project has.

    Raises:
        AlreadyExistsError: There is one.
    """
    if await store.is_name_taken(
        connection, tenant_id, instance.project_id, instance.name, instance.instance_id
    ):
        violation = FieldViolation("instance.name", "is taken in this project", "NAME_TAKEN")
        raise AlreadyExistsError(
            "NAME_TAKEN",
            f"the project has an instance {instance.name}",
            metadata={"name": instance.name},
            field_violations=[violation],
        )


def _edges(instance: Instance) -> set[str]:
    return {edge.upstream.instance_id for flow in instance.flows for edge in flow.upstreams}


async def _check_cycle(connection: Connection, tenant_id: str, instance: Instance) -> None:
    """Refuse edges that make the instance its own ancestor; the edges are already written, and rolled back."""
    if not await graph.has_cycle(connection, tenant_id, instance.instance_id):
        return
    edges = await graph.list_ancestor_edges(connection, tenant_id, instance.instance_id)
    cycle = shortest_cycle([(edge[0], edge[1]) for edge in edges], instance.instance_id)
    names = {edge[1]: edge[2] for edge in edges}
    read = cycle[1]
    closing = [one.path for one in named_upstreams(instance) if one.instance_id == read]
    path = " -> ".join(names.get(instance_id, instance_id) for instance_id in cycle)
    raise FailedPreconditionError(
        "CYCLE",
        f"the upstreams close a cycle: {path}",
        metadata={"path": " -> ".join(cycle)[:4096]},
        preconditions=[
            PreconditionViolation("CYCLE", f"{names.get(one, one)}", f"reads {names.get(other, other)}")
            for one, other in itertools.pairwise(cycle)
        ],
        field_violations=[
            FieldViolation(where, f"closes a cycle: {path}", "CYCLE")
            for where in closing or ["instance.upstream_refs"]
        ],
    )
