"""The errors of refreshes: one function for each, so that every error has one wording."""

from __future__ import annotations

from collections.abc import Sequence

from optaic.rules import refusals
from run_service.domain.errors import RETRY_SECONDS, invalid_fields
from servicekit.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)


def selection_required(given: Sequence[str]) -> InvalidArgumentError:
    """Return the refusal INVALID_ARGUMENT for a selection that is none, or more than one."""
    text = "must have exactly one of: instance_ids; project_id, labels or both; all"
    if given:
        text += f"; it has {', '.join(given)}"
    return invalid_fields([FieldViolation("selection", text)])


def refresh_not_found(refresh_id: str) -> NotFoundError:
    """Return the refusal REFRESH_NOT_FOUND."""
    return NotFoundError(
        "REFRESH_NOT_FOUND",
        f"refresh {refresh_id} does not exist; check refresh_id, or find the refresh with ListRefreshes",
        metadata={"refresh_id": refresh_id},
    )


def refresh_ended(refresh_id: str, status: str) -> FailedPreconditionError:
    """Return the refusal REFRESH_ENDED."""
    return FailedPreconditionError(
        "REFRESH_ENDED",
        f"refresh {refresh_id} has already ended ({status}); there is nothing to cancel",
        metadata={"refresh_id": refresh_id, "status": status},
    )


def refresh_not_resumable(refresh_id: str, status: str) -> FailedPreconditionError:
    """Return the refusal REFRESH_NOT_RESUMABLE."""
    return FailedPreconditionError(
        "REFRESH_NOT_RESUMABLE",
        f"refresh {refresh_id} is {status}; only a failed or cancelled one can be resumed; submit a new refresh",
        metadata={"refresh_id": refresh_id, "status": status},
    )


def too_many_flows(limit: int) -> ResourceExhaustedError:
    """Return the refusal TOO_MANY_FLOWS for a selection of more instances than a refresh may have flows."""
    text, metadata = refusals.too_many_flows(limit)
    return ResourceExhaustedError("TOO_MANY_FLOWS", text, metadata=metadata)


def plan_too_large(flows: int) -> ResourceExhaustedError:
    """Return the refusal TOO_MANY_FLOWS for a plan that does not fit into an answer."""
    text, metadata = refusals.plan_too_large(flows)
    return ResourceExhaustedError("TOO_MANY_FLOWS", text, metadata=metadata)


def too_many_upstream_flows(limit: int) -> ResourceExhaustedError:
    """Return the refusal TOO_MANY_FLOWS for a scheduled time with more flows above it than its refresh may have."""
    text, metadata = refusals.too_many_flows(limit, "refresh some of those above the scheduled time before")
    return ResourceExhaustedError("TOO_MANY_FLOWS", text, metadata=metadata)


def too_many_refreshes(limit: int) -> ResourceExhaustedError:
    """Return the refusal TOO_MANY_REFRESHES: the tenant has as many running refreshes as it may have."""
    return ResourceExhaustedError(
        "TOO_MANY_REFRESHES",
        f"the tenant has {limit} running refreshes, and may have no more (OPTAIC_TENANT_REFRESHES); wait until some have ended, "
        "or cancel some",
        metadata={"limit": str(limit)},
        retry_seconds=RETRY_SECONDS,
    )
