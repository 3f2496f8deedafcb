"""Write changed instances as new revisions, any number at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from instance_service.domain import errors
from instance_service.domain.paths import shortest_cycle
from instance_service.resources.conversion import etag_of, timestamp
from instance_service.resources.dependencies import ResourceDependencies
from instance_service.resources.instances.drafts import Draft
from instance_service.resources.instances.rows import RowsByTable, rows_of
from instance_service.resources.instances.upstreams import named_upstreams
from instance_service.store import graph, queue
from instance_service.store import instances as store
from optaic.common.v1.flow_pb2 import FlowRef
from optaic.instance.v1.instance_pb2 import Instance
from servicekit import audit, off_loop, outbox
from servicekit.database import Connection
from servicekit.events import Event

_NOT_COMPARED = ("revision", "etag", "update_time", "create_time", "state", "conditions")


@dataclass(frozen=True)
class Revision:
    """Describe a change of one instance: its stored state, its draft, and the reason."""

    current: Instance
    draft: Draft
    reason: str


def note_revision(revision: Revision) -> None:
    """Note a revision of an instance for the audit record of the call."""
    audit.note(
        f"instances/{revision.current.instance_id}",
        before=revision.current.revision,
        after=revision.draft.instance.revision,
        reason=revision.reason,
    )


async def write_revisions(
    deps: ResourceDependencies,
    connection: Connection,
    tenant_id: str,
    author: str,
    revisions: Sequence[Revision],
) -> None:
    """Write new revisions of instances and of their changed components; requires the tenant's lock.

    Sets revision, etag and times of the drafts in place. Every draft must differ from the stored instance.

    Raises:
        AlreadyExistsError: The name is already used.
        FailedPreconditionError: A cycle would close.
    """
    if not revisions:
        return
    components = [item for revision in revisions for item in revision.draft.components]
    known = await store.get_snapshots(connection, tenant_id, [item.instance_id for item in components])
    for revision in revisions:
        if revision.draft.instance.name != revision.current.name:
            await check_name(connection, tenant_id, revision.draft.instance)
    size = sum(revision.draft.instance.ByteSize() for revision in revisions)
    rows, announcements = await off_loop.run_if_large(
        size, _written, deps, tenant_id, author, revisions, known
    )
    instances = [revision.draft.instance for revision in revisions]
    ids = [item.instance_id for item in (*instances, *components)]
    await store.replace_instances(connection, tenant_id, ids, rows)
    for revision in revisions:
        if _edges(revision.draft.instance) != _edges(revision.current):
            await _check_cycle(connection, tenant_id, revision.draft.instance)
    await queue.enqueue(connection, tenant_id, [instance.instance_id for instance in instances])
    await outbox.append(connection, announcements)
    if deps.moved_flows is not None:
        deps.moved_flows.extend(flow for revision in revisions for flow in _moved_flows(revision))


def _moved_flows(revision: Revision) -> list[FlowRef]:
    """Return the flows that had another fingerprint before the revision."""
    current, desired = revision.current, revision.draft.instance
    before = {flow.flow_kind: flow.compute_fingerprint for flow in current.flows}
    return [
        FlowRef(instance_id=current.instance_id, flow_kind=flow.flow_kind)
        for flow in desired.flows
        if before.get(flow.flow_kind, flow.compute_fingerprint) != flow.compute_fingerprint
    ]


def _written(
    deps: ResourceDependencies,
    tenant_id: str,
    author: str,
    revisions: Sequence[Revision],
    known: Mapping[str, bytes],
) -> tuple[RowsByTable, list[Event]]:
    """Stamp the drafts; return the rows to write and the events. `known` holds the components as stored."""
    rows: RowsByTable = defaultdict(list)
    for revision in revisions:
        draft = revision.draft
        changed = [draft.instance]
        for component in draft.components:
            previous = Instance.FromString(known[component.instance_id])
            if is_same(component, previous):
                component.CopyFrom(previous)
            else:
                stamp(deps, component, previous)
                changed.append(component)
        stamp(deps, draft.instance, revision.current)
        for table, added in rows_of(tenant_id, draft, changed, author, revision.reason).items():
            rows[table].extend(added)
    events = deps.events(tenant_id)
    return rows, [events.updated(each.draft.instance, author, each.reason) for each in revisions]


def is_same(left: Instance, right: Instance) -> bool:
    """Return whether two instances are equal in everything that a revision records."""

    def comparable(instance: Instance) -> Instance:
        copy = Instance()
        copy.CopyFrom(instance)
        for name in _NOT_COMPARED:
            copy.ClearField(name)  # type: ignore[arg-type]  # the type stubs require literals
        for ref in copy.upstream_refs:  # the upstreams own their names
            ref.ClearField("name")
            ref.ClearField("bound_name")
        return copy

    return bool(comparable(left) == comparable(right))


def stamp(deps: ResourceDependencies, instance: Instance, previous: Instance | None) -> None:
    """Set revision, etag and times for a new revision."""
    now = timestamp(deps.clock.now())
    instance.revision = previous.revision + 1 if previous else 1
    instance.etag = etag_of(instance.revision)
    instance.create_time.CopyFrom(previous.create_time if previous else now)
    instance.update_time.CopyFrom(now)


async def check_name(connection: Connection, tenant_id: str, instance: Instance) -> None:
    """Refuse a name that another live instance of the project has.

    Raises:
        AlreadyExistsError: The name is already used.
    """
    if await store.is_name_taken(
        connection, tenant_id, instance.project_id, instance.name, instance.instance_id
    ):
        raise errors.instance_name_taken(instance.name)


def _edges(instance: Instance) -> set[str]:
    return {edge.upstream.instance_id for flow in instance.flows for edge in flow.upstreams}


async def _check_cycle(connection: Connection, tenant_id: str, instance: Instance) -> None:
    """Refuse edges that make an instance its own ancestor; the edges are already written and get rolled back."""
    if not await graph.has_cycle(connection, tenant_id, instance.instance_id):
        return
    edges = await graph.list_ancestor_edges(connection, tenant_id, instance.instance_id)
    cycle = shortest_cycle([(edge[0], edge[1]) for edge in edges], instance.instance_id)
    names = {edge[1]: edge[2] for edge in edges}
    read = cycle[1]
    closing = [one.path for one in named_upstreams(instance) if one.instance_id == read]
    raise errors.cycle_closed(cycle, names, closing or ["instance.upstream_refs"])
