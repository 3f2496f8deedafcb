"""Decide about each call: who calls, with which rights, and whether they reach what the request names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from servicekit import access, confinement
from servicekit.access import MethodAccess
from servicekit.auth import Authenticator, unauthenticated
from servicekit.bindings import RoleBindings
from servicekit.context import RequestContext, Scopes
from servicekit.errors import DomainError, PermissionDeniedError

Metadata = Mapping[str, str]
# Returns the project of each of the ids that this service knows.
Locate = Callable[[str, Collection[str]], Awaitable[Mapping[str, str]]]
# A token gives these whatever the bindings say.
_FIXED_ROLES = frozenset({access.ADMIN, access.EXECUTOR, access.SERVICE})
_OWN_DEPTH = (
    2  # `instance_id` and `instance.project_id` name what the call is about; deeper ids are references
)


class Admission:
    """The decision about callers, by their token and by this service's copy of the bindings.

    Without `bindings` the roles of the token count in the whole tenant. Without `locate` a caller
    with a permission in some projects only is refused.
    """

    def __init__(
        self, authenticator: Authenticator, bindings: RoleBindings | None = None, locate: Locate | None = None
    ) -> None:
        self.authenticator = authenticator
        self._bindings = bindings
        self._locate = locate

    async def admit(
        self,
        request: RequestContext,
        method: MethodAccess,
        metadata: Metadata,
        peer: str,
        certificate: Sequence[str] = (),
    ) -> None:
        """Find out who calls, and refuse whoever is not permitted; the request itself is not read.

        `certificate` has the URIs of the client's certificate.

        Raises:
            UnauthenticatedError: There is no valid token.
            PermissionDeniedError: No role of the caller permits the method.
        """
        identity = await self.authenticator.authenticate(metadata, peer, certificate)
        request.tenant_id, request.actor, request.roles = identity.tenant_id, identity.actor, identity.roles
        request.scopes = None
        fixed = identity.roles & _FIXED_ROLES
        if self._bindings is None or access.is_permitted(fixed, method.permission):
            access.check_permitted(identity.roles, method.permission, method.path)
            return
        grants = await self._bindings.find(identity.tenant_id, identity.actor)
        if grants is None:
            access.check_permitted(identity.roles, method.permission, method.path)
            return
        request.roles = fixed | grants.tenant_roles
        if access.is_permitted(request.roles, method.permission):
            return
        permitted, readable = (
            frozenset(
                project
                for project, roles in grants.roles_by_project.items()
                if access.is_permitted(roles, permission)
            )
            for permission in (method.permission, access.READ)
        )
        if not permitted or not method.is_by_project or self._locate is None:
            access.check_permitted(request.roles, method.permission, method.path)
        # Whoever reads the whole tenant may refer to everything in it.
        reads_all = access.is_permitted(request.roles, access.READ)
        request.scopes = Scopes(permitted, None if reads_all else readable)

    async def confine(self, request: RequestContext, method: MethodAccess, message: Any) -> Any:
        """Return the request as a confined caller may make it: in it, ids of what the caller may not read name nothing.

        Raises:
            PermissionDeniedError: The caller may read what the request is about, but not do this there; or the request
                names nothing, and the method answers for all.
        """
        scopes = request.scopes
        if scopes is None or not isinstance(message, Message):
            return message
        named, own = set[str](), set[str]()
        for each, depth in confinement.ids_of(message):
            named.add(each)
            if depth <= _OWN_DEPTH:
                own.add(each)
        if method.needs_project and not own:
            raise _outside(method)
        projects = await self._projects_of(request, named)
        # What this service does not know (yet) names nothing, too.
        unreadable = {each for each in named if not scopes.may_read(projects.get(each, ""))}
        if any(projects[each] not in scopes.permitted for each in own - unreadable):
            raise _outside(method)
        if not unreadable:
            return message
        confined = type(message)()
        confined.CopyFrom(message)
        request.stand_ins = confinement.mask(confined, unreadable)
        return confined

    async def hide(self, request: RequestContext, response: Any) -> Any:
        """Return an answer with whatever is in a project that the caller may not read hidden."""
        if request.scopes is None or not isinstance(response, Message):
            return response
        unreadable = await self._unreadable(request, confinement.subjects_of(response))
        if not unreadable:
            return response
        shown = type(response)()
        shown.CopyFrom(response)  # other callers may get the same object
        confinement.hide(shown, unreadable)
        return shown

    async def hide_in_error(self, request: RequestContext, error: DomainError) -> DomainError:
        """Return an error as a confined caller may see it."""
        if request.scopes is None:
            return error
        unreadable = await self._unreadable(request, error.about)
        if unreadable and error.without is not None:
            error = error.without(unreadable)
        confinement.unmask(error, request.stand_ins)
        return error

    async def _unreadable(self, request: RequestContext, ids: Collection[str]) -> set[str]:
        assert request.scopes is not None
        if request.scopes.readable is None:
            return set()
        projects = await self._projects_of(request, ids)
        return {each for each in ids if not request.scopes.may_read(projects.get(each, ""))}

    async def _projects_of(self, request: RequestContext, ids: Collection[str]) -> Mapping[str, str]:
        """Return the project of each of the ids that this service knows; a project's own is itself."""
        assert request.scopes is not None
        assert self._locate is not None
        # Nothing moves to another project, so a stream asks for each id once.
        known = request.projects
        known.update((each, each) for each in request.scopes.projects.intersection(ids))
        unknown = [each for each in ids if each not in known]
        if unknown:
            known.update(await self._locate(request.tenant_id, unknown))
        return known

    async def check_again(
        self,
        request: RequestContext,
        method: MethodAccess,
        metadata: Metadata,
        peer: str,
        certificate: Sequence[str],
        message: Any,
    ) -> None:
        """Refuse an open stream whose caller would not be admitted now, or would be someone else.

        Raises:
            UnauthenticatedError: The token is not valid any more, or belongs to another.
            PermissionDeniedError: The caller's rights were taken away.
        """
        now = RequestContext("", "", request.request_id, request.traceparent)
        await self.admit(now, method, metadata, peer, certificate)
        if (now.tenant_id, now.actor) != (request.tenant_id, request.actor):
            raise unauthenticated()
        await self.confine(now, method, message)
        if now.stand_ins != request.stand_ins or _has_lost(request.scopes, now.scopes):
            raise _outside(method)


def _has_lost(before: Scopes | None, now: Scopes | None) -> bool:
    """Return whether a caller may reach less than when its stream began."""
    if now is None:
        return False
    return before is None or not (before.permitted <= now.permitted and before.reads_within(now))


def _outside(method: MethodAccess) -> PermissionDeniedError:
    role = access.least_role(method.permission)
    return PermissionDeniedError(
        "PERMISSION_DENIED",
        f"{method.name} needs the role {role} in every project that the request names, and the request must name one "
        "by its id; ask an administrator of your tenant for the role",
        metadata={"permission": method.permission.lower(), "role": role},
    )
