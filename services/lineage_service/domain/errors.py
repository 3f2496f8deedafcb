"""What the service refuses, and in which words."""

from __future__ import annotations

from lineage_service.domain.flows import FlowKey
from servicekit.errors import NotFoundError


def flow_not_found(key: FlowKey) -> NotFoundError:
    """Return the error about a flow that is not there."""
    return NotFoundError(
        "FLOW_NOT_FOUND",
        f"there is no flow {key.flow_kind} of instance {key.instance_id}",
        metadata={"instance_id": key.instance_id, "flow_kind": key.flow_kind},
    )
