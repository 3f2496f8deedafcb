"""Say which role permits what, and which permission each method of a contract needs; it reads no setting and no storage."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor

from servicekit.errors import PermissionDeniedError

VIEWER = "viewer"
RESEARCHER = "researcher"
MAINTAINER = "maintainer"
ADMIN = "admin"
EXECUTOR = "executor"
SERVICE = "service"

READ_CONFIGURATION = "READ_CONFIGURATION"
READ = "READ"
EDIT = "EDIT"
RUN = "RUN"
MAINTAIN = "MAINTAIN"
MANAGE_ACCESS = "MANAGE_ACCESS"
REPORT_RUNS = "REPORT_RUNS"
REMOVE_DATA = "REMOVE_DATA"
SERVE = "SERVE"
READ_AUDIT = "READ_AUDIT"
MOVE_DATA = "MOVE_DATA"

_VIEWING = frozenset({READ_CONFIGURATION, READ})
_RESEARCHING = _VIEWING | {EDIT, RUN}
_MAINTAINING = _RESEARCHING | {MAINTAIN}

# From the role that permits least to the one that permits most; the last two are for programs.
PERMISSIONS_BY_ROLE: Mapping[str, frozenset[str]] = {
    VIEWER: _VIEWING,
    RESEARCHER: _RESEARCHING,
    MAINTAINER: _MAINTAINING,
    ADMIN: _MAINTAINING | {MANAGE_ACCESS, READ_AUDIT, MOVE_DATA},
    EXECUTOR: frozenset({READ_CONFIGURATION, REPORT_RUNS, REMOVE_DATA}),
    SERVICE: frozenset({READ_CONFIGURATION, READ, SERVE}),
}
ROLES = frozenset(PERMISSIONS_BY_ROLE)

_PROGRAMS = frozenset({EXECUTOR, SERVICE})

# What a service has when it acts by itself and nobody asks.
SERVICE_ROLES = frozenset({SERVICE})

_PERMISSION = "optaic.common.v1.permission"
_OPTIONS = {_PERMISSION: "PERMISSION_", "optaic.common.v1.project_scope": "PROJECT_SCOPE_"}
_UNSPECIFIED, _NAMED, _ANY, _EACH = "UNSPECIFIED", "NAMED", "ANY", "EACH"


@dataclass(frozen=True)
class MethodAccess:
    """The rule of one method, as its contract states it: who may call it."""

    path: str
    permission: str
    is_by_project: bool = False  # the permission in some projects is enough
    needs_project: bool = False  # the request must then name one of them
    has_inner: bool = False  # the request lists requests of other methods; each must be permitted

    @property
    def name(self) -> str:
        """Return the name without the service."""
        return self.path.rpartition("/")[2]


def access_of(path: str) -> MethodAccess:
    """Return what the contract of a method says; its path is `/<service>/<name>`, as gRPC writes it.

    Raises:
        ValueError: The contract of the method is not known, or it names no permission.
    """
    service, _, name = path.removeprefix("/").partition("/")
    try:
        options = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].GetOptions()
        permission, scope = (_word(options, option, prefix) for option, prefix in _OPTIONS.items())
    except KeyError:
        raise ValueError(f"no contract is known of the method {path}") from None
    if permission in ("", _UNSPECIFIED):
        raise ValueError(
            f"the contract of the method {path} names no permission: set the option {_PERMISSION}"
        )
    return MethodAccess(path, permission, scope in (_NAMED, _ANY, _EACH), scope == _NAMED, scope == _EACH)


@functools.cache
def access_of_request(request: Descriptor) -> MethodAccess:
    """Return what the contract says of the method whose requests are of a type; the contract is in the same file.

    Raises:
        ValueError: No method or several have such requests, or the contract names no permission.
    """
    paths = [
        f"/{service.full_name}/{method.name}"
        for service in request.file.services_by_name.values()
        for method in service.methods
        if method.input_type.full_name == request.full_name
    ]
    if len(paths) != 1:
        raise ValueError(
            f"{request.full_name} is the request of {len(paths)} methods; it must be that of one"
        )
    return access_of(paths[0])


def _word(options: Any, option: str, prefix: str) -> str:
    """Return the value of an option without its prefix; empty if it is a number without a name."""
    extension: Any = descriptor_pool.Default().FindExtensionByName(option)
    value = extension.enum_type.values_by_number.get(options.Extensions[extension])
    return "" if value is None else str(value.name).removeprefix(prefix)


def is_permitted(roles: Iterable[str], permission: str) -> bool:
    """Return whether one of the roles has a permission; a role that is not known has none."""
    return any(permission in PERMISSIONS_BY_ROLE.get(role, ()) for role in roles)


def is_for_people(permission: str) -> bool:
    """Return whether a role of people has a permission; the others are for programs alone."""
    return is_permitted(ROLES - _PROGRAMS, permission)


def least_role(permission: str) -> str:
    """Return the role with the fewest rights that has a permission; empty if none has it."""
    return next((role for role, has in PERMISSIONS_BY_ROLE.items() if permission in has), "")


def check_permitted(roles: Iterable[str], permission: str, method: str) -> None:
    """Refuse a caller none of whose roles has the permission.

    Raises:
        PermissionDeniedError: PERMISSION_DENIED with the permission and the role that is needed.
    """
    given = sorted(roles)
    if is_permitted(given, permission):
        return
    role = least_role(permission)
    name = method.rpartition("/")[2]
    raise PermissionDeniedError(
        "PERMISSION_DENIED",
        f"{name} needs the role {role or 'that nobody has'}, and you have {', '.join(given) or 'none'}; "
        "ask an administrator of your tenant for the role",
        metadata={"permission": permission.lower(), "role": role},
    )
