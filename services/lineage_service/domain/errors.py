"""The errors of lineage-service: one function for each, so that every error has one wording."""

from __future__ import annotations

from lineage_service.domain.keys import FlowKey
from optaic.rules import refusals
from servicekit.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError


def flow_not_found(key: FlowKey) -> NotFoundError:
    """Return the error FLOW_NOT_FOUND: lineage-service does not know the flow."""
    text, metadata = refusals.flow_not_found(key.instance_id, key.flow_kind)
    return NotFoundError("FLOW_NOT_FOUND", text, metadata=metadata)


def not_a_flow_kind(number: int) -> InvalidArgumentError:
    """Return the error INVALID_EVENT for a number that names no flow kind."""
    return InvalidArgumentError(
        "INVALID_EVENT",
        f"flow_kind: {number} names no flow kind; use a value of optaic.common.v1.FlowKind, not UNSPECIFIED",
    )


def not_a_uuid(text: str) -> InvalidArgumentError:
    """Return the error INVALID_EVENT for an id that is not a UUID."""
    return InvalidArgumentError(
        "INVALID_EVENT",
        f"{text[:100]!r} is not a UUID; set instance_id, run_id and version_id to ids that the services returned",
    )


def run_without_number(run_id: str) -> InvalidArgumentError:
    """Return the error INVALID_EVENT for a run whose number is missing or negative."""
    return InvalidArgumentError(
        "INVALID_EVENT",
        f"run_number: run {run_id} has no number; set 1 or more (0 only in RunCancelled, for a refused run)",
    )


def only_services_attach() -> PermissionDeniedError:
    """Return the error PERMISSION_DENIED for a caller that attaches facts and is not a service."""
    return PermissionDeniedError(
        "PERMISSION_DENIED",
        "instance and run_events can be set only by services; leave both fields out of the request",
    )
