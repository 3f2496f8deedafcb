"""The words of a file of tokens, which the command line writes and the services read."""

from __future__ import annotations

from optaic.common.v1.access_pb2 import Role

_PREFIX = "ROLE_"
ROLES = tuple(
    name.removeprefix(_PREFIX).lower() for name, number in Role.items() if number != Role.ROLE_UNSPECIFIED
)
# A file gives every role but the one of OptAIC's own services.
GIVEN_ROLES = tuple(role for role in ROLES if role != "service")
# What an entry without roles has.
DEFAULT_ROLES = frozenset({"researcher", "maintainer"})
TENANT_PATTERN = "[a-z0-9][a-z0-9_-]{0,62}"
