"""Verify bearer tokens and find the caller that each belongs to; it grants no rights."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

from servicekit.context import is_tenant_id
from servicekit.errors import InvalidArgumentError, UnauthenticatedError
from servicekit.settings import ServiceSettings

AUTHORIZATION_KEY = "authorization"
TENANT_KEY = "optaic-tenant"
ACTOR_KEY = "optaic-actor"
DEVELOPMENT_TOKEN = "development"  # noqa: S105 - public by design, accepted from loopback only
_LOOPBACK_PEERS = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:")
_MAXIMUM_ACTOR = 200


@dataclass(frozen=True)
class Identity:
    """A verified caller."""

    tenant_id: str
    actor: str
    is_service: bool = False


_DEVELOPER = Identity("default", "developer")


class Authenticator:
    """Verifies bearer tokens as the settings say."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._is_development = settings.auth == "development"
        self._service_token = settings.service_token.encode()
        self._identities: dict[str, Identity] = {}
        if settings.auth == "tokens":
            if settings.tokens_file is None:
                raise ValueError("OPTAIC_AUTH=tokens needs OPTAIC_TOKENS_FILE")
            for digest, entry in json.loads(settings.tokens_file.read_text()).items():
                if not is_tenant_id(entry["tenant"]):
                    raise ValueError(f"{entry['tenant']!r} is not a tenant id")
                self._identities[digest.lower()] = Identity(entry["tenant"], entry["actor"])

    def authenticate(self, metadata: Mapping[str, str], peer: str) -> Identity:
        """Return the identity of a call.

        Raises:
            UnauthenticatedError: There is no valid token.
            InvalidArgumentError: A service does not name the tenant for which it acts.
        """
        token = _bearer(metadata.get(AUTHORIZATION_KEY, ""))
        if self._service_token and hmac.compare_digest(token.encode(), self._service_token):
            tenant_id = metadata.get(TENANT_KEY, "")
            if not is_tenant_id(tenant_id):
                raise InvalidArgumentError("TENANT_REQUIRED", f"metadata {TENANT_KEY} must name the tenant")
            return Identity(tenant_id, metadata.get(ACTOR_KEY, "service")[:_MAXIMUM_ACTOR], is_service=True)
        if self._is_development:
            if token in ("", DEVELOPMENT_TOKEN) and peer.startswith(_LOOPBACK_PEERS):
                return _DEVELOPER
        elif token:
            # The lookup is by digest: its timing says nothing about a token.
            identity = self._identities.get(hashlib.sha256(token.encode()).hexdigest())
            if identity is not None:
                return identity
        raise UnauthenticatedError(
            "UNAUTHENTICATED", "no valid token was sent; send the metadata `authorization: Bearer <token>`"
        )


def _bearer(header: str) -> str:
    scheme, _, token = header.partition(" ")
    if header and scheme.lower() != "bearer":
        raise UnauthenticatedError("UNAUTHENTICATED", "the metadata authorization must be `Bearer <token>`")
    return token.strip()
