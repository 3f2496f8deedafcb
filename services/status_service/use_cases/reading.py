"""Read statuses for callers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.rules.pages import DEFAULT_SIZE
from optaic.status.v1 import status_pb2
from servicekit import pages
from servicekit.enums import enum_number
from status_service import conversion, store
from status_service.domain.errors import flow_not_found, instances_not_found
from status_service.use_cases.dependencies import Dependencies


async def get_statuses(
    deps: Dependencies, tenant_id: str, instance_ids: Sequence[str]
) -> list[status_pb2.InstanceStatus]:
    """Return the statuses in the order asked for.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND, naming every missing id.
    """
    async with deps.database.read(tenant_id) as connection:
        rows = await store.get_statuses(connection, tenant_id, set(instance_ids))
    missing = set(instance_ids) - set(rows)
    if missing:
        raise instances_not_found(missing)
    return [_stamped(rows[instance_id]) for instance_id in instance_ids]


async def get_flow_status(
    deps: Dependencies, tenant_id: str, instance_id: str, flow_kind: str
) -> status_pb2.FlowStatus:
    """Return the status of one flow.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND or FLOW_NOT_FOUND.
    """
    (status,) = await get_statuses(deps, tenant_id, [instance_id])
    wanted = enum_number(FlowKind, flow_kind)
    for flow in status.flows:
        if flow.flow_kind == wanted:
            return flow
    raise flow_not_found(instance_id, flow_kind)


async def list_statuses(
    deps: Dependencies,
    tenant_id: str,
    *,
    project_id: str,
    statuses: Sequence[str],
    kinds: Sequence[str],
    page_size: int,
    page_token: str,
) -> tuple[list[status_pb2.InstanceStatus], str]:
    """Return a page of statuses and the token of the next one."""
    tokens = pages.PageTokens(
        deps.signer, tenant_id, "ListInstanceStatuses", project_id, sorted(statuses), sorted(kinds)
    )
    after = str(tokens.decode(page_token)["after"]) if page_token else ""
    size = page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        rows = await store.list_statuses(
            connection,
            tenant_id,
            size + 1,
            after=after,
            project_id=project_id,
            statuses=statuses,
            kinds=kinds,
        )
    more = tokens.encode({"after": rows[size - 1].instance_id}) if len(rows) > size else ""
    return [_stamped(row) for row in rows[:size]], more


async def list_transitions(
    deps: Dependencies, tenant_id: str, instance_id: str, page_size: int, page_token: str
) -> tuple[list[store.TransitionRow], str]:
    """Return a page of an instance's history, newest first, and the token of the next one."""
    tokens = pages.PageTokens(deps.signer, tenant_id, "GetStatusHistory", instance_id)
    before = int(tokens.decode(page_token)["before"]) if page_token else None
    size = page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        rows = await store.list_transitions(connection, tenant_id, instance_id, before, size + 1)
    more = tokens.encode({"before": rows[size - 1].revision}) if len(rows) > size else ""
    return rows[:size], more


def _stamped(row: store.StatusRow) -> status_pb2.InstanceStatus:
    return conversion.stamped(row.body, row.revision, row.update_time)


async def locate(deps: Dependencies, tenant_id: str, ids: Collection[str]) -> Mapping[str, str]:
    """Return the project of each id that is an instance's or a project's."""
    async with deps.database.read(tenant_id) as connection:
        return await store.locate(connection, tenant_id, ids)
