"""What lineage-service refuses, and in which words."""

from __future__ import annotations

from lineage_service.domain.flows import FlowKey
from servicekit.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError


def flow_not_found(key: FlowKey) -> NotFoundError:
    """Return the refusal FLOW_NOT_FOUND."""
    return NotFoundError(
        "FLOW_NOT_FOUND",
        f"there is no flow {key.flow_kind} of instance {key.instance_id}",
        metadata={"instance_id": key.instance_id, "flow_kind": key.flow_kind},
    )


def not_a_flow_kind(number: int) -> InvalidArgumentError:
    """Return the refusal INVALID_EVENT of a number that no flow kind has."""
    return InvalidArgumentError("INVALID_EVENT", f"{number} is not a flow kind")


def not_a_uuid(text: str) -> InvalidArgumentError:
    """Return the refusal INVALID_EVENT of an id that is not a UUID."""
    return InvalidArgumentError("INVALID_EVENT", f"{text[:100]!r} is not a UUID")


def run_without_number(run_id: str) -> InvalidArgumentError:
    """Return the refusal INVALID_EVENT of a run that says no number."""
    return InvalidArgumentError("INVALID_EVENT", f"run {run_id} has no number")


def only_services_attach() -> PermissionDeniedError:
    """Return the refusal PERMISSION_DENIED of a caller that attaches facts and is not a service."""
    return PermissionDeniedError("PERMISSION_DENIED", "only services may attach what they know")
