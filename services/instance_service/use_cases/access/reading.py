"""Read who has which role, and where things belong."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from instance_service.store import projects as project_store
from instance_service.store import role_bindings as store
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.access_pb2 import RoleBinding
from optaic.instance.v1.access_service_pb2 import ListRoleBindingsRequest, ListRoleBindingsResponse
from optaic.rules.pages import DEFAULT_SIZE
from servicekit import pages


async def list_role_bindings(
    deps: Dependencies, tenant_id: str, request: ListRoleBindingsRequest
) -> ListRoleBindingsResponse:
    """Return a page of the roles that are granted, by actor and project."""
    tokens = pages.PageTokens(deps.signer, tenant_id, "ListRoleBindings", request.actor, request.project_id)
    after = None
    if position := tokens.decode(request.page_token):
        after = position["actor"], position["project"]
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        rows = await store.list_granted(
            connection, tenant_id, request.actor, request.project_id, after, size + 1
        )
    found = [RoleBinding.FromString(row) for row in rows[:size]]
    response = ListRoleBindingsResponse(role_bindings=found)
    if len(rows) > size:
        response.next_page_token = tokens.encode({"actor": found[-1].actor, "project": found[-1].project_id})
    return response


async def locate(deps: Dependencies, tenant_id: str, ids: Collection[str]) -> Mapping[str, str]:
    """Return the project of each id that is an instance's or a project's."""
    async with deps.database.read(tenant_id) as connection:
        return await project_store.locate(connection, tenant_id, ids)
