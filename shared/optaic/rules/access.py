"""The roles that tokens and bindings give; the command line writes their words, and the services read them."""

from __future__ import annotations

from buf.validate import validate_pb2
from optaic.common.v1.access_pb2 import Role
from optaic.instance.v1.access_service_pb2 import GrantRoleRequest

_PREFIX = "ROLE_"
ROLES = tuple(
    name.removeprefix(_PREFIX).lower() for name, number in Role.items() if number != Role.ROLE_UNSPECIFIED
)
_GRANTED = GrantRoleRequest.DESCRIPTOR.fields_by_name["role"].GetOptions().Extensions[validate_pb2.field]
# A binding gives these.
BOUND_ROLES = tuple(
    Role.Name(number).removeprefix(_PREFIX).lower() for number in getattr(_GRANTED.enum, "in")
)
# A file gives every role but the one of OptAIC's own services.
GIVEN_ROLES = tuple(role for role in ROLES if role != "service")
# What an entry without roles has.
DEFAULT_ROLES = frozenset({"researcher", "maintainer"})
TENANT_PATTERN = "[a-z0-9][a-z0-9_-]{0,62}"
