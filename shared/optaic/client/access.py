"""Bindings: which actor has which role, in a project or in the whole tenant."""

from __future__ import annotations

from typing import Any

from optaic.client.connection import Connection
from optaic.client.definitions import all_pages
from optaic.client.projects import ProjectLike, project_id_of
from optaic.common.v1.access_pb2 import Role
from optaic.instance.v1 import access_service_pb2 as api
from optaic.instance.v1.access_pb2 import RoleBinding
from optaic.instance.v1.access_service_pb2_grpc import AccessServiceStub
from optaic.rules.access import BOUND_ROLES
from optaic.rules.pages import LARGEST_SIZE


class Access:
    """The methods for bindings of roles; only an administrator may call them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _call(self, method: str, request: Any) -> Any:
        return await self._connection.call("instance", AccessServiceStub, method, request)

    async def grant(self, actor: str, role: str, *, project: ProjectLike = "") -> RoleBinding:
        """Give an actor a role in a project, or without one in the whole tenant.

        It replaces the role that the actor had there. From the first binding on, the bindings alone say where the actor is a
        viewer, researcher or maintainer.

        Raises:
            ValueError: Bindings give no such role.
            NotFoundError: PROJECT_NOT_FOUND.
        """
        if role.lower() not in BOUND_ROLES:
            way = "; the roles admin and executor come from the token (`optaic admin token create`)"
            raise ValueError(f"role: must be one of {', '.join(BOUND_ROLES)}, not {role!r}{way}")
        request = api.GrantRoleRequest(
            actor=actor, role=Role.Value(f"ROLE_{role.upper()}"), project_id=project_id_of(project)
        )
        answer: RoleBinding = await self._call("GrantRole", request)
        return answer

    async def revoke(self, actor: str, *, project: ProjectLike = "") -> RoleBinding:
        """Take away the role that an actor has in a project, or without one in the whole tenant.

        Raises:
            NotFoundError: ROLE_BINDING_NOT_FOUND; the actor has no role there.
        """
        request = api.RevokeRoleRequest(actor=actor, project_id=project_id_of(project))
        answer: RoleBinding = await self._call("RevokeRole", request)
        return answer

    async def list(self, *, actor: str = "", project: ProjectLike = "") -> list[RoleBinding]:
        """Return the bindings that give a role, by actor and project; an empty filter means all."""

        async def page(request: Any) -> Any:
            return await self._call("ListRoleBindings", request)

        request = api.ListRoleBindingsRequest(
            actor=actor, project_id=project_id_of(project), page_size=LARGEST_SIZE
        )
        return await all_pages(page, request, "role_bindings")
