"""Find the caller that a client's certificate names: a service or a tenant's worker; people have certificates and tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from servicekit.access import EXECUTOR, SERVICE
from servicekit.auth import Authenticator, Identity, bearer, service_identity
from servicekit.context import is_tenant_id
from servicekit.errors import UnauthenticatedError

_SERVICE = re.compile(r"spiffe://optaic/service/(instance|run|lineage|status)-service")
_WORKER = re.compile(r"spiffe://optaic/tenant/([^/]+)/worker")


def uris_of(grpc_context: Any) -> tuple[str, ...]:
    """Return the URIs in the certificate that TLS has verified for a call; none without a certificate."""
    found = (grpc_context.auth_context() or {}).get("x509_subject_alternative_name", ())
    return tuple(text for each in found if (text := each.decode(errors="replace")).startswith("spiffe://"))


class CertificateAuthenticator:
    """Accepts services and workers by their certificates, and the tokens that `inner` accepts.

    A token never widens what a certificate says: the service token counts only from a service, and that of a tenant's
    executor only from a worker of this tenant.
    """

    def __init__(self, inner: Authenticator) -> None:
        self._inner = inner
        self.is_open = inner.is_open

    async def authenticate(
        self, metadata: Mapping[str, str], peer: str, certificate: Sequence[str] = (), /
    ) -> Identity:
        """Return the identity of a call; see Authenticator."""
        is_service, tenant = _read(certificate)
        if not bearer(metadata):
            if is_service:
                return service_identity(metadata)
            if tenant:
                return Identity(tenant, "worker", frozenset({EXECUTOR}))
        identity = await self._inner.authenticate(metadata, peer, certificate)
        if SERVICE in identity.roles and not is_service:
            raise _refusal("the service token counts only with the certificate of a service")
        if EXECUTOR in identity.roles and tenant != identity.tenant_id:
            raise _refusal(
                "the token of an executor counts only with the certificate of a worker of its tenant"
            )
        if tenant and tenant != identity.tenant_id:
            raise _refusal("the certificate belongs to a worker of another tenant than the token")
        return identity

    async def refresh(self) -> None:
        """Read again what tokens are verified with; see Authenticator."""
        await self._inner.refresh()


def _read(uris: Sequence[str]) -> tuple[bool, str]:
    """Return whether a service is named, and the tenant of a worker; a certificate with several names has none."""
    if len(uris) != 1:
        return False, ""
    if _SERVICE.fullmatch(uris[0]):
        return True, ""
    found = _WORKER.fullmatch(uris[0])
    return False, found[1] if found and is_tenant_id(found[1]) else ""


def _refusal(problem: str) -> UnauthenticatedError:
    return UnauthenticatedError("UNAUTHENTICATED", problem)
