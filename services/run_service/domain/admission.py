"""What has to hold before a run is admitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from servicekit.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    PreconditionViolation,
)


@dataclass(frozen=True)
class Blocking:
    """One upstream flow that is not READY."""

    instance_name: str
    flow_kind: str
    status: str
    reason: str
    is_missing_input: bool


def check_force(force_reason: str, *, force: bool) -> None:
    """Refuse a force without a reason.

    Raises:
        InvalidArgumentError: FORCE_REASON_REQUIRED.
    """
    if force and not force_reason.strip():
        raise InvalidArgumentError("FORCE_REASON_REQUIRED", "say why the run is forced")


def check_allow_deletion(reason: str, *, allow_deletion: bool) -> None:
    """Refuse to let a run delete without a reason.

    Raises:
        InvalidArgumentError: ALLOW_DELETION_REASON_REQUIRED.
    """
    if allow_deletion and not reason.strip():
        text = "say why the run may delete"
        raise InvalidArgumentError(
            "ALLOW_DELETION_REASON_REQUIRED",
            text,
            field_violations=[
                FieldViolation("allow_deletion_reason", text, "ALLOW_DELETION_REASON_REQUIRED")
            ],
        )


def check_upstreams(blocking: Sequence[Blocking], *, all_ready: bool, force: bool) -> None:
    """Refuse a run whose upstreams are not ready; force overrides everything but a missing input.

    Raises:
        FailedPreconditionError: UPSTREAM_NOT_READY, or MISSING_INPUT, with one violation for each flow.
    """
    if all_ready:
        return
    if not force:
        raise _blocked("UPSTREAM_NOT_READY", "upstream flows are not ready", blocking)
    missing = [flow for flow in blocking if flow.is_missing_input]
    if missing:
        raise _blocked("MISSING_INPUT", "inputs have no version to read; force does not help", missing)


def _blocked(reason: str, text: str, flows: Sequence[Blocking]) -> FailedPreconditionError:
    names = ", ".join(f"{flow.instance_name}/{flow.flow_kind} is {flow.status}" for flow in flows[:10])
    return FailedPreconditionError(
        reason,
        f"{text}: {names}" + (", ..." if len(flows) > 10 else ""),  # noqa: PLR2004 - a readable sentence
        metadata={"blocking": str(len(flows))},
        preconditions=[
            PreconditionViolation(flow.status, f"{flow.instance_name}/{flow.flow_kind}", flow.reason)
            for flow in flows
        ],
    )


def check_full_range(instance_name: str, computed_with: str, fingerprint: str) -> None:
    """Refuse a range of dates for an output that another configuration computed: the rest would stay as that made it.

    `computed_with` is empty where there is no output yet: then the range is all that there will be.

    Raises:
        FailedPreconditionError: FULL_RANGE_REQUIRED.
    """
    if computed_with and computed_with != fingerprint:
        text = (
            f"the configuration of {instance_name} changed since it was computed: a range of dates would leave "
            "the others as the old one made them; submit a run without start and end"
        )
        raise FailedPreconditionError(
            "FULL_RANGE_REQUIRED",
            text,
            preconditions=[PreconditionViolation("FULL_RANGE_REQUIRED", instance_name, text)],
        )
