"""Callers of every role, for tests: services under test accept their tokens beside the developer's and the service token."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from servicekit.token_files import GIVEN_ROLES, digest_of

_TENANTS = ("default", "other", "acme")
_files: list[Any] = []  # open as long as this process lives, then removed

Metadata = tuple[tuple[str, str], ...]


def token_of(role: str, tenant: str = "default") -> str:
    """Return the token of the tenant's only actor with this role, whose name is the role's."""
    return f"token-of-{role}-of-{tenant}"


def caller(role: str, tenant: str = "default") -> Metadata:
    """Return the metadata by which a caller shows who it is."""
    return (("authorization", f"Bearer {token_of(role, tenant)}"),)


@functools.cache
def tokens_file() -> Path:
    """Return the file with the tokens of all roles and tenants."""
    entries = {
        digest_of(token_of(role, tenant)): {"tenant": tenant, "actor": role, "roles": [role]}
        for role in GIVEN_ROLES
        for tenant in _TENANTS
    }
    file = tempfile.NamedTemporaryFile("w", suffix=".json")  # noqa: SIM115 - open until the process ends
    _files.append(file)
    json.dump(entries, file)
    file.flush()
    return Path(file.name)


class Signed:
    """A stub whose calls show an identity, unless they show another."""

    def __init__(self, stub: Any, metadata: Metadata) -> None:
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(self._stub, name), metadata=self._metadata)
