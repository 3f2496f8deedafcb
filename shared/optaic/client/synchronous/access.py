"""Bindings: which actor has which role, in a project or in the whole tenant. Generated from optaic.client.access by `make client`; do not edit."""

from __future__ import annotations

from optaic.client import access as asynchronous
from optaic.client.projects import ProjectLike
from optaic.client.synchronous.loop import Plain
from optaic.instance.v1.access_pb2 import RoleBinding


class Access(Plain[asynchronous.Access]):
    """The methods for bindings of roles; only an administrator may call them."""

    def grant(self, actor: str, role: str, *, project: ProjectLike = "") -> RoleBinding:
        """Give an actor a role in a project, or without one in the whole tenant.

        It replaces the role that the actor had there. From the first binding on, the bindings alone say where the actor is a
        viewer, researcher or maintainer.

        Raises:
            ValueError: Bindings give no such role.
            NotFoundError: PROJECT_NOT_FOUND.
        """
        return self._loop.run(self._target.grant(actor, role, project=project))

    def revoke(self, actor: str, *, project: ProjectLike = "") -> RoleBinding:
        """Take away the role that an actor has in a project, or without one in the whole tenant.

        Raises:
            NotFoundError: ROLE_BINDING_NOT_FOUND; the actor has no role there.
        """
        return self._loop.run(self._target.revoke(actor, project=project))

    def list(self, *, actor: str = "", project: ProjectLike = "") -> list[RoleBinding]:
        """Return the bindings that give a role, by actor and project; an empty filter means all."""
        return self._loop.run(self._target.list(actor=actor, project=project))
