"""Decide about each call: who calls, with which rights, and whether they reach what the request names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from servicekit import access, confinement, off_loop
from servicekit.access import MethodAccess
from servicekit.auth import Authenticator, unauthenticated
from servicekit.bindings import NO_GRANTS, Grants, RoleBindings
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
        scopes = _scopes_of(grants, request.roles, method.permission)
        if not scopes.permitted or not method.is_by_project or self._locate is None:
            access.check_permitted(request.roles, method.permission, method.path)
        request.scopes = scopes

    async def confine(self, request: RequestContext, method: MethodAccess, message: Any) -> Any:
        """Return the request as a confined caller may make it: in it, ids of what the caller may not read name nothing.

        Raises:
            PermissionDeniedError: The caller may read what the request is about, but not do this there; or the request
                names nothing, and the method answers for all; or one of these is true of a request within it.
        """
        scopes = request.scopes
        if scopes is None or not isinstance(message, Message):
            return message
        size = message.ByteSize()
        named = await off_loop.run_if_large(size, _named, message)
        projects = dict(await self._projects_of(request, named))
        if method.has_inner:
            assert self._bindings is not None
            grants = await self._bindings.find(request.tenant_id, request.actor) or NO_GRANTS
            await off_loop.run_if_large(size, _check_inner, request, grants, message, projects)
        else:
            await off_loop.run_if_large(size, _check_own, method, scopes, projects, message)
        # What this service does not know (yet) names nothing, too.
        unreadable = {each for each in named if not scopes.may_read(projects.get(each, ""))}
        if not unreadable:
            return message
        confined, request.stand_ins = await off_loop.run_if_large(size, _confined, message, unreadable)
        return confined

    async def hide(self, request: RequestContext, response: Any) -> Any:
        """Return an answer with whatever is in a project that the caller may not read hidden."""
        if request.scopes is None or not isinstance(response, Message):
            return response
        size = response.ByteSize()
        subjects = await off_loop.run_if_large(size, confinement.subjects_of, response)
        unreadable = await self._unreadable(request, subjects)
        if not unreadable:
            return response
        return await off_loop.run_if_large(size, _without, response, unreadable)

    async def hide_in_error(self, request: RequestContext, error: DomainError) -> DomainError:
        """Return an error as a confined caller may see it."""
        if request.scopes is None:
            return error
        unreadable = await self._unreadable(request, error.about)
        return confinement.hide_in_error(error, unreadable, request.stand_ins)

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


def _named(message: Message) -> set[str]:
    """Return the ids in a request."""
    return {each for each, _ in confinement.ids_of(message)}


def _confined(message: Message, unreadable: set[str]) -> tuple[Message, dict[str, str]]:
    """Return a copy of a request without the unreadable ids, and what stands in for them."""
    confined = type(message)()
    confined.CopyFrom(message)
    return confined, confinement.mask(confined, unreadable)


def _without(response: Message, unreadable: set[str]) -> Message:
    """Return a copy of an answer without what is unreadable; other callers may get the same object."""
    shown = type(response)()
    shown.CopyFrom(response)
    confinement.hide(shown, unreadable)
    return shown


def _has_lost(before: Scopes | None, now: Scopes | None) -> bool:
    """Return whether a caller may reach less than when its stream began."""
    if now is None:
        return False
    return before is None or not (before.permitted <= now.permitted and before.reads_within(now))


def _scopes_of(grants: Grants, tenant_roles: Collection[str], permission: str) -> Scopes:
    """Return where grants give a permission, and what they let read."""
    permitted, readable = (
        frozenset(
            project
            for project, roles in grants.roles_by_project.items()
            if access.is_permitted(roles, wanted)
        )
        for wanted in (permission, access.READ)
    )
    # Whoever reads the whole tenant may refer to everything in it.
    return Scopes(permitted, None if access.is_permitted(tenant_roles, access.READ) else readable)


def _check_inner(request: RequestContext, grants: Grants, message: Message, projects: dict[str, str]) -> None:
    """Refuse a list of requests unless each would be admitted by itself; say where what they would create belongs."""
    for inner in confinement.inner_requests(message):
        rules = access.access_of_request(inner.message.DESCRIPTOR)
        scopes = _scopes_of(grants, request.roles, rules.permission)
        within = _check_own(rules, scopes, projects, inner.message, inner.path)
        request.inner_scopes[inner.index] = scopes
        if inner.assumed_id and len(within) == 1:
            projects.setdefault(inner.assumed_id, *within)


def _check_own(
    method: MethodAccess, scopes: Scopes, projects: Mapping[str, str], message: Message, path: str = ""
) -> set[str]:
    """Return the projects of what a request is about, without those that the caller may not read.

    Raises:
        PermissionDeniedError: The caller has no permission in one of them, or anywhere; or the request names nothing.
    """
    own = {each for each, depth in confinement.ids_of(message) if depth <= _OWN_DEPTH}
    within = {found for each in own if scopes.may_read(found := projects.get(each, ""))}
    outside = min(within - scopes.permitted, default="") if method.is_by_project else ""
    if outside or not method.is_by_project or not scopes.permitted or (method.needs_project and not own):
        raise _outside(method, path, outside)
    return within


def _outside(method: MethodAccess, path: str = "", project_id: str = "") -> PermissionDeniedError:
    """Return the refusal of a method, or of the request at a path within a request."""
    role = access.least_role(method.permission)
    where = "in every project that the request names, and the request must name one by its id"
    if path:
        where = (
            "in a project, and must name this by its id" if method.is_by_project else "in the whole tenant"
        )
        where = f"in the project {project_id}" if project_id else where
    metadata = {"permission": method.permission.lower(), "role": role}
    if path:
        metadata |= {"change": path, "project_id": project_id}
    return PermissionDeniedError(
        "PERMISSION_DENIED",
        f"{f'{path}: ' if path else ''}{method.name} needs the role {role} {where}; ask an administrator of your tenant for the role",
        metadata={key: value for key, value in metadata.items() if value},
    )
