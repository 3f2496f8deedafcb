"""Read the caller that a client's certificate names: a service or a tenant's worker; people have certificates and tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from servicekit.context import is_tenant_id

_SERVICE = re.compile(r"spiffe://optaic/service/(instance|run|lineage|status)-service")
_WORKER = re.compile(r"spiffe://optaic/tenant/([^/]+)/worker")


def uris_of(grpc_context: Any) -> tuple[str, ...]:
    """Return the URIs in the certificate that TLS has verified for a call; none without a certificate."""
    found = (grpc_context.auth_context() or {}).get("x509_subject_alternative_name", ())
    return tuple(text for each in found if (text := each.decode(errors="replace")).startswith("spiffe://"))


def holder_of(uris: Sequence[str]) -> tuple[bool, str]:
    """Return whether a service is named, and the tenant of a worker; a certificate with several names has none."""
    if len(uris) != 1:
        return False, ""
    if _SERVICE.fullmatch(uris[0]):
        return True, ""
    found = _WORKER.fullmatch(uris[0])
    return False, found[1] if found and is_tenant_id(found[1]) else ""
