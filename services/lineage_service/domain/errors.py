"""The errors of lineage-service: one function for each, so that every error has one wording."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from lineage_service.domain.keys import FlowKey
from optaic.rules import refusals
from servicekit.errors import (
    HIDDEN,
    HIDDEN_BECAUSE,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    PreconditionViolation,
    ResourceExhaustedError,
)


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


def run_active(name: str, run_number: int) -> FailedPreconditionError:
    """Return the error FLOW_IS_RUNNING for an output that a run is about to replace."""
    return FailedPreconditionError(
        "FLOW_IS_RUNNING", f"run {run_number} of {name} is active; wait until it has ended, or cancel it"
    )


def no_output(name: str) -> FailedPreconditionError:
    """Return the error FLOW_WITHOUT_OUTPUT for a flow that has never succeeded."""
    return FailedPreconditionError("FLOW_WITHOUT_OUTPUT", f"{name} has no output to accept; run it first")


def flow_is_fresh(name: str) -> FailedPreconditionError:
    """Return the error FLOW_IS_FRESH for a flow whose output is right already."""
    return FailedPreconditionError("FLOW_IS_FRESH", f"{name} is fresh; leave it as it is")


def upstream_not_fresh(
    name: str, upstreams: Mapping[FlowKey, str], hidden: Collection[str] = ()
) -> FailedPreconditionError:
    """Return the error UPSTREAM_NOT_FRESH, with the upstreams by name except those of hidden instances."""
    reason = "UPSTREAM_NOT_FRESH"
    error = FailedPreconditionError(
        reason,
        f"an upstream of {name} is not fresh; refresh each one, or accept its staleness first",
        preconditions=[
            PreconditionViolation(reason, HIDDEN, HIDDEN_BECAUSE)
            if key.instance_id in hidden
            else PreconditionViolation(reason, f"{upstream}/{key.flow_kind}", "it is not fresh")
            for key, upstream in sorted(upstreams.items())
        ],
        about={key.instance_id for key in upstreams},
    )
    error.without = lambda ids: upstream_not_fresh(name, upstreams, ids)
    return error


def nothing_accepted(name: str) -> FailedPreconditionError:
    """Return the error NOTHING_ACCEPTED for a flow without an accepted staleness."""
    return FailedPreconditionError(
        "NOTHING_ACCEPTED",
        f"nothing is accepted for {name}, or a run has completed since; leave it as it is",
    )


def too_many_flows(limit: int) -> ResourceExhaustedError:
    """Return the refusal TOO_MANY_FLOWS for a plan with more flows than the caller takes."""
    text, metadata = refusals.too_many_flows(limit)
    return ResourceExhaustedError("TOO_MANY_FLOWS", text, metadata=metadata)


def plan_too_large(flows: int) -> ResourceExhaustedError:
    """Return the error TOO_MANY_FLOWS for a plan that does not fit into an answer."""
    text, metadata = refusals.plan_too_large(flows)
    return ResourceExhaustedError("TOO_MANY_FLOWS", text, metadata=metadata)


def answers_too_large(asked: int) -> InvalidArgumentError:
    """Return the error TOO_LARGE for flows whose answers do not fit together."""
    text = f"the answers for {asked} flows are too large together, because many upstreams block them; ask for fewer at once"
    return InvalidArgumentError(
        "TOO_LARGE", f"requests: {text}", field_violations=[FieldViolation("requests", text, "TOO_LARGE")]
    )


def history_not_kept(field: str, start_revision: int, start_time: datetime) -> OutOfRangeError:
    """Return the error HISTORY_NOT_KEPT for a field with a moment before the first one that can be shown."""
    return OutOfRangeError(
        "HISTORY_NOT_KEPT",
        f"{field}: history is kept from revision {start_revision} of {start_time.isoformat()} on; ask for that or a later one",
        metadata={"start_revision": str(start_revision), "start_time": start_time.isoformat()},
    )


def revision_unknown(field: str, revision: int, newest: int) -> OutOfRangeError:
    """Return the error REVISION_UNKNOWN for a field with a revision that has not been reached."""
    return OutOfRangeError(
        "REVISION_UNKNOWN",
        f"{field}: there is no revision {revision} yet, the newest is {newest}; ask for that or an earlier one",
        metadata={"newest_revision": str(newest)},
    )


class CalendarError(Exception):
    """The business days of a calendar cannot be read now."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"calendar {name}: {what}")
