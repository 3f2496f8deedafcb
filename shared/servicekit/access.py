"""Say which role permits what, and which permission each method of a contract needs; it reads no setting and no storage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import descriptor_pool

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

# Workers that have no token of an executor yet send the service token. Once none does, this becomes empty.
_SERVICES_AS_EXECUTORS = frozenset({REPORT_RUNS, REMOVE_DATA})

_VIEWING = frozenset({READ_CONFIGURATION, READ})
_RESEARCHING = _VIEWING | {EDIT, RUN}
_MAINTAINING = _RESEARCHING | {MAINTAIN}

# From the role that permits least to the one that permits most; the last two are for programs.
PERMISSIONS_BY_ROLE: Mapping[str, frozenset[str]] = {
    VIEWER: _VIEWING,
    RESEARCHER: _RESEARCHING,
    MAINTAINER: _MAINTAINING,
    ADMIN: _MAINTAINING | {MANAGE_ACCESS, READ_AUDIT},
    EXECUTOR: frozenset({READ_CONFIGURATION, REPORT_RUNS, REMOVE_DATA}),
    SERVICE: frozenset({READ_CONFIGURATION, READ, SERVE}) | _SERVICES_AS_EXECUTORS,
}
ROLES = frozenset(PERMISSIONS_BY_ROLE)

# What a service has when it acts by itself and nobody asks.
SERVICE_ROLES = frozenset({SERVICE})

_OPTION = "optaic.common.v1.permission"
_PREFIX = "PERMISSION_"
_UNSPECIFIED = 0


def permission_of(method: str) -> str:
    """Return the permission that a method's contract names; the method is `/<service>/<name>`, as gRPC writes it.

    Raises:
        ValueError: The contract of the method is not known, or it names no permission.
    """
    service, _, name = method.removeprefix("/").partition("/")
    pool = descriptor_pool.Default()
    try:
        option: Any = pool.FindExtensionByName(_OPTION)
        options = pool.FindServiceByName(service).methods_by_name[name].GetOptions()
    except KeyError:
        raise ValueError(f"no contract is known of the method {method}") from None
    number: int = options.Extensions[option]
    value = option.enum_type.values_by_number.get(number)
    if value is None or number == _UNSPECIFIED:
        raise ValueError(f"the contract of the method {method} names no permission: set the option {_OPTION}")
    return str(value.name).removeprefix(_PREFIX)


def is_permitted(roles: Iterable[str], permission: str) -> bool:
    """Return whether one of the roles has a permission; a role that is not known has none."""
    return any(permission in PERMISSIONS_BY_ROLE.get(role, ()) for role in roles)


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
