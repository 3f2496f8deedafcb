"""Decide about each call: who calls, with which rights, and whether they reach what the request names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from servicekit import access
from servicekit.access import MethodAccess
from servicekit.auth import Authenticator, unauthenticated
from servicekit.bindings import RoleBindings
from servicekit.context import RequestContext, Scopes
from servicekit.errors import PermissionDeniedError
from servicekit.ids import is_id

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

    Without `bindings` the roles of the token count in the whole tenant. Without `locate` nobody is admitted who has a
    permission in some projects only.
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

    async def check_message(self, request: RequestContext, method: MethodAccess, message: Any) -> None:
        """Refuse a confined caller whose request names something outside of its projects.

        Raises:
            PermissionDeniedError: It does, or it names no project at all and the method answers for all.
        """
        if request.scopes is None or self._locate is None or not isinstance(message, Message):
            return
        named, own = set[str](), set[str]()
        for each, depth in _ids_of(message):
            named.add(each)
            if depth <= _OWN_DEPTH:
                own.add(each)
        mine = request.scopes.permitted | (request.scopes.readable or frozenset())
        projects = {each: each for each in named if each in mine}
        unknown = [each for each in named if each not in projects]
        if unknown:
            projects |= await self._locate(request.tenant_id, unknown)
        reached = {
            each: request.scopes.permitted if each in own else request.scopes.readable for each in projects
        }
        is_outside = any(
            within is not None and projects[each] not in within for each, within in reached.items()
        )
        if is_outside or (method.needs_project and not own & projects.keys()):
            raise _outside(method)

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
        await self.check_message(now, method, message)


def _ids_of(message: Message, depth: int = 1) -> Iterator[tuple[str, int]]:
    """Yield each id in a message, wherever it stands and in lower case, with the depth of its field."""
    for field, value in message.ListFields():
        if field.name == "request_id":
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            items = [*value.keys(), *value.values()]
        else:
            items = list(value) if field.is_repeated else [value]
        for item in items:
            if isinstance(item, Message):
                yield from _ids_of(item, depth + 1)
            elif isinstance(item, str) and is_id(item.lower()):
                yield item.lower(), depth


def _outside(method: MethodAccess) -> PermissionDeniedError:
    role = access.least_role(method.permission)
    return PermissionDeniedError(
        "PERMISSION_DENIED",
        f"{method.name} needs the role {role} in every project that the request names, and the request must name one "
        "by its id; ask an administrator of your tenant for the role",
        metadata={"permission": method.permission.lower(), "role": role},
    )
