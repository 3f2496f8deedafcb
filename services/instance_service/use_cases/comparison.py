"""Let other services compare their instances with the existing ones, and publish again what they lack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from instance_service.events import SELF, Events
from instance_service.resources.conversion import timestamp
from instance_service.store import comparison as store
from instance_service.store import instances, role_bindings
from instance_service.use_cases.dependencies import Dependencies
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH
from optaic.instance.v1.access_pb2 import RoleBinding, RoleBindingEntry, RoleBindingPage
from optaic.instance.v1.instance_comparison_pb2 import InstanceEntry, InstancePage
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance, InstanceKind
from optaic.run.v1.run_comparison_pb2 import RunEntry
from servicekit import outbox
from servicekit.database import lock_tenant
from servicekit.enums import enum_number
from servicekit.ids import is_id

_FIRST_ID = "00000000-0000-0000-0000-000000000000"
_PAGE = 1_000
_REASON = "published again because a service had not received it"


async def list_tenants(deps: Dependencies, known: Iterable[str]) -> list[str]:
    """Return the tenants that have or had instances, together with the known ones.

    A service may still hold deleted instances of a tenant that has none left, so that tenant is listed too.
    """
    tenants, after = set(known), ""
    while True:
        async with deps.database.infra() as connection:
            found = await store.next_tenant(connection, after)
        if found is None:
            return sorted(tenants)
        tenants.add(found)
        after = found


async def pages(deps: Dependencies, tenant_id: str) -> AsyncIterator[InstancePage]:
    """Yield all instances of a tenant in pages; together the pages cover the whole range of ids."""
    after = ""
    while True:
        async with deps.database.read(tenant_id) as connection:
            entries = await store.list_page(connection, tenant_id, after or _FIRST_ID, _PAGE)
        is_last = len(entries) < _PAGE
        page = InstancePage(
            after_instance_id=after,
            until_instance_id="" if is_last else entries[-1].instance_id,
            instances=[_entry(entry) for entry in entries],
        )
        yield page
        if is_last:
            return
        after = page.until_instance_id


def _entry(entry: store.Entry) -> InstanceEntry:
    return InstanceEntry(
        instance_id=entry.instance_id,
        revision=entry.revision,
        update_time=timestamp(entry.update_time),
        kind=enum_number(InstanceKind, entry.kind),
        is_deleting=entry.state == "deleting",
        project_id=entry.project_id,
    )


async def publish_again(deps: Dependencies, tenant_id: str, instance_ids: Sequence[str]) -> None:
    """Publish the current state of instances; for those that no longer exist, publish the deletion.

    Instances with an event waiting in the outbox are skipped. A service that lacks more than that event asks again.
    """
    asked = {each for each in instance_ids if is_id(each)}
    events = deps.events(tenant_id)
    async with deps.database.transaction(tenant_id) as connection:
        wanted = sorted(asked - await outbox.list_waiting(connection, asked))
        found = await instances.get_snapshots(connection, tenant_id, wanted)
        again = []
        for instance_id in wanted:
            if instance_id not in found:
                again.append(events.deleted(Instance(instance_id=instance_id)))
                continue
            instance = Instance.FromString(found[instance_id])
            if instance.state == INSTANCE_STATE_DELETING:
                again.append(events.deletion_requested(instance))
            else:
                again.append(events.updated(instance, SELF, _REASON))
        await outbox.append(connection, again)


async def list_old_outputs(deps: Dependencies, tenant_id: str, flows: Iterable[RunEntry]) -> dict[str, int]:
    """Return the instances whose newest output is unknown here, with the number of the run that wrote it."""
    numbers = {
        entry.flow.instance_id: entry.completed_run_number
        for entry in flows
        if entry.flow.flow_kind == FLOW_KIND_REFRESH and entry.completed_run_number
    }
    if not numbers:
        return {}
    async with deps.database.read(tenant_id) as connection:
        found = await store.list_old_outputs(connection, tenant_id, numbers)
    return {instance_id: numbers[instance_id] for instance_id in found}


async def binding_pages(deps: Dependencies, tenant_id: str) -> AsyncIterator[RoleBindingPage]:
    """Yield all bindings of roles of a tenant, with their revisions, in pages."""
    after = ""
    while True:
        async with deps.database.read(tenant_id) as connection:
            found = await role_bindings.list_revisions(connection, tenant_id, after, _PAGE)
        if not found:
            return
        entries = [RoleBindingEntry(binding_id=each, revision=revision) for each, revision in found]
        yield RoleBindingPage(role_bindings=entries)
        after = entries[-1].binding_id


async def publish_bindings_again(deps: Dependencies, tenant_id: str, binding_ids: Sequence[str]) -> None:
    """Publish the current state of bindings again."""
    async with deps.database.transaction(tenant_id) as connection:
        await lock_tenant(connection, tenant_id)
        wanted = [each for each in binding_ids if is_id(each)]
        found = await role_bindings.list_bindings(connection, tenant_id, wanted)
        events = Events(tenant_id, deps.clock, deps.ids)
        await outbox.append(
            connection, [events.role_binding_changed(RoleBinding.FromString(each)) for each in found]
        )
