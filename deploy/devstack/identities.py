"""The URIs that certificates name their holders by: for gRPC, and as users of a NATS server that maps certificates."""

from __future__ import annotations

OPERATOR_URI = "spiffe://optaic/operator"


def service_uri(service: str) -> str:
    """Return the URI of a service, for example of `run`."""
    return f"spiffe://optaic/service/{service}-service"


def worker_uri(tenant: str) -> str:
    """Return the URI of a tenant's worker."""
    return f"spiffe://optaic/tenant/{tenant}/worker"


def subscriber_uri(tenant: str) -> str:
    """Return the URI of a tenant's subscribers to NATS."""
    return f"spiffe://optaic/tenant/{tenant}/subscriber"
