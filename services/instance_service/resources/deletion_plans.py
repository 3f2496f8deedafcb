"""Plan a deletion: what it would delete, and why it would be refused; nothing is changed.

A deletion and its preview use the same plan, so the preview shows exactly what would be deleted.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from instance_service.domain import errors
from instance_service.domain.errors import Blocking
from instance_service.domain.paths import downstream_first
from instance_service.resources.instances.locking import check_revision
from instance_service.resources.projects import check_project_etag
from instance_service.store import deletion, graph
from instance_service.store import projects as project_store
from instance_service.store.deletion import DeletedResource
from optaic.instance.v1.instance_pb2 import PROJECT_STATE_DELETING, Project
from optaic.instance.v1.instance_service_pb2 import (
    DeleteInstanceRequest,
    DeleteProjectRequest,
)
from servicekit.database import Connection

_MANY = 1000  # from this number of instances on, a thread computes the order
_TOGETHER = "delete them first, or set `cascade` to delete them too"


@dataclass(frozen=True)
class Plan:
    """List the resources that a deletion would remove, in order, and those of them that have dependants."""

    deleted: Sequence[DeletedResource] = ()
    read: frozenset[str] = frozenset()
    is_under_way: bool = False  # the deletion has begun already

    @property
    def etag(self) -> str:
        """Return an etag of the list of resources that would be deleted."""
        text = "\n".join(sorted(each.instance_id for each in self.deleted))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Reach:
    """Hold the start of a deletion and everything that depends on it, directly or through others."""

    edges: Sequence[tuple[str, str]]  # (reader, read)
    order: Sequence[str]  # dependants first
    known: Mapping[str, DeletedResource]

    @property
    def live(self) -> list[DeletedResource]:
        """Return the resources that are not being deleted yet, in order."""
        return [self.known[each] for each in self.order if not self.known[each].is_deleting]


async def plan_instance(connection: Connection, tenant_id: str, request: DeleteInstanceRequest) -> Plan:
    """Plan the deletion of an instance; under the tenant's lock the plan holds until the transaction ends.

    Raises:
        NotFoundError: It does not exist.
        AbortedError: An etag is stale.
        FailedPreconditionError: Other instances depend on it and `cascade` is not set; each is named.
    """
    start = request.instance_id.lower()
    reach = await _load_reach(connection, tenant_id, [start])
    if start not in reach.known:
        raise errors.instances_not_found([start])
    owner_id = reach.known[start].owner_instance_id
    owners = await deletion.describe(connection, tenant_id, [owner_id]) if owner_id else {}
    return _plan_of_instance(reach, start, owners.get(owner_id), request)


def _plan_of_instance(
    reach: Reach, start: str, owner: DeletedResource | None, request: DeleteInstanceRequest
) -> Plan:
    instance = reach.known[start]
    check_revision(instance.name, instance.revision, request.etag)
    if instance.is_deleting:
        return Plan(is_under_way=True)
    if owner is not None:
        composed = [Blocking(owner.instance_id, owner.name, f"is composed of it ({owner.instance_id})")]
        raise errors.deletion_blocked(
            "HAS_DEPENDANTS",
            f"{instance.name} is a part of",
            composed,
            "delete that instead; this component is deleted with it",
        )
    live = reach.live
    if len(live) > 1 and not request.cascade:
        direct = {reader for reader, upstream in reach.edges if upstream == start}
        # The dependants of a live dependant are live too, so at least one live dependant reads the instance directly.
        readers = [each for each in live if each.instance_id in direct and each is not instance]
        found = [
            Blocking(each.instance_id, each.name, f"{_kind_and_id(each)} depends on it") for each in readers
        ]
        raise errors.deletion_blocked(
            "HAS_DEPENDANTS", f"{instance.name} has the dependants", found, _TOGETHER
        )
    return _plan(live, reach.edges, request.preview_etag)


def check_within(plan: Plan, name: str, project_ids: Collection[str]) -> None:
    """Refuse a plan that would delete what is outside of some projects.

    Raises:
        FailedPreconditionError: HAS_DEPENDANTS, naming what is outside.
    """
    found = [
        Blocking(
            each.instance_id, each.name, f"{_kind_and_id(each)} is in a project where you may not delete"
        )
        for each in plan.deleted
        if each.project_id not in project_ids
    ]
    if found:
        way = "their projects' members must delete them, or change their upstreams, first"
        raise errors.deletion_blocked("HAS_DEPENDANTS", f"{name} has the dependants", found, way)


async def plan_project(
    connection: Connection, tenant_id: str, request: DeleteProjectRequest, project: Project
) -> Plan:
    """Plan the deletion of a project; under the tenant's lock the plan holds until the transaction ends.

    Raises:
        AbortedError: An etag is stale.
        FailedPreconditionError: The project is not empty and `cascade` is not set, or another project depends on it.
    """
    check_project_etag(project, request.etag)
    if project.state == PROJECT_STATE_DELETING:
        return Plan(is_under_way=True)
    contents = await project_store.list_contents(connection, tenant_id, project.project_id)
    return _plan_of_project(await _load_reach(connection, tenant_id, contents), project, request)


def _plan_of_project(reach: Reach, project: Project, request: DeleteProjectRequest) -> Plan:
    inside = [each for each in reach.live if each.project_id == project.project_id]
    if inside and not request.cascade:
        found = [Blocking(each.instance_id, each.name, f"{_kind_and_id(each)} is in it") for each in inside]
        raise errors.deletion_blocked("PROJECT_NOT_EMPTY", f"project {project.name} holds", found, _TOGETHER)
    if strangers := [each for each in reach.live if each.project_id != project.project_id]:
        direct = {
            reader for reader, read in reach.edges if reach.known[read].project_id == project.project_id
        }
        found = [
            Blocking(
                each.instance_id,
                each.name,
                f"{_kind_and_id(each)} of project {each.project_name} depends on what is in it",
            )
            for each in strangers
            if each.instance_id in direct
        ]
        way = "instances of other projects are never deleted with it; delete them first, or change their upstreams"
        raise errors.deletion_blocked(
            "HAS_DEPENDANTS", f"project {project.name} has the dependants", found, way
        )
    return _plan(inside, reach.edges, request.preview_etag)


async def _load_reach(connection: Connection, tenant_id: str, starts: Sequence[str]) -> Reach:
    edges = await graph.list_descendant_edges(connection, tenant_id, starts)
    order = await _in_order(starts, edges)
    return Reach(edges, order, await deletion.describe(connection, tenant_id, order))


async def _in_order(starts: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[str]:
    """Sort resources so that dependants come first; large plans are sorted in a thread to keep the event loop free."""
    if len(starts) + len(edges) <= _MANY:
        return downstream_first(starts, edges)
    return await asyncio.to_thread(downstream_first, starts, edges)


def _plan(live: Sequence[DeletedResource], edges: Sequence[tuple[str, str]], preview_etag: str) -> Plan:
    plan = Plan(live, frozenset(upstream for _, upstream in edges))
    if preview_etag not in {"", plan.etag}:
        raise errors.deletion_changed()
    return plan


def _kind_and_id(entry: DeletedResource) -> str:
    return f"{entry.kind} {entry.instance_id}"
