"""The URIs that certificates name their holders by: for gRPC, and as users of a NATS server that maps certificates."""

from __future__ import annotations

OPERATOR_URI = "spiffe://optaic/operator"
# It names no service and no worker, so no service gives it a right: the gateway passes on the tokens of its callers.
GATEWAY_URI = "spiffe://optaic/gateway"


def service_uri(service: str) -> str:
    """Return the URI of a service, for example of `run`."""
    return f"spiffe://optaic/service/{service}-service"


def worker_uri(tenant: str) -> str:
    """Return the URI of a tenant's worker."""
    return f"spiffe://optaic/tenant/{tenant}/worker"


def subscriber_uri(tenant: str) -> str:
    """Return the URI of a tenant's subscribers to NATS."""
    return f"spiffe://optaic/tenant/{tenant}/subscriber"
