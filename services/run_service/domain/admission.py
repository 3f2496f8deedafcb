"""Check what must hold before a run is admitted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from run_service.domain.errors import (
    allow_deletion_reason_required,
    force_reason_required,
    full_range_required,
    missing_input,
    upstreams_not_ready,
)
from servicekit.errors import HIDDEN, HIDDEN_BECAUSE, FailedPreconditionError, PreconditionViolation

_MOST_NAMED = 100  # flows of one refusal: more do not fit into the details of an error


@dataclass(frozen=True)
class Blocking:
    """One upstream flow that is not READY."""

    instance_name: str
    flow_kind: str
    status: str
    reason: str
    is_missing_input: bool
    instance_id: str = ""
    named: frozenset[str] = frozenset()  # the instances that the reason may name


def check_force(force_reason: str, *, force: bool) -> None:
    """Refuse a forced run without a reason.

    Raises:
        InvalidArgumentError: FORCE_REASON_REQUIRED.
    """
    if force and not force_reason.strip():
        raise force_reason_required()


def check_allow_deletion(reason: str, *, allow_deletion: bool) -> None:
    """Refuse a run that may delete data without a reason.

    Raises:
        InvalidArgumentError: ALLOW_DELETION_REASON_REQUIRED.
    """
    if allow_deletion and not reason.strip():
        raise allow_deletion_reason_required()


def check_upstreams(blocking: Sequence[Blocking], *, count: int, missing_count: int, force: bool) -> None:
    """Refuse a run whose upstream flows are not READY; force overrides every reason except a missing input.

    `count` flows block, and `missing_count` of them have no output; `blocking` may be a part of them.

    Raises:
        FailedPreconditionError: UPSTREAM_NOT_READY, or MISSING_INPUT, with one violation for each of the flows that are given.
    """
    if count == 0:
        return
    if not force:
        raise _refusal(upstreams_not_ready, blocking, count)
    if missing_count:
        missing = [flow for flow in blocking if flow.is_missing_input]
        raise _refusal(missing_input, missing, missing_count)


def _refusal(
    make: Callable[[Sequence[PreconditionViolation], int], FailedPreconditionError],
    flows: Sequence[Blocking],
    count: int,
    hidden: Collection[str] = (),
) -> FailedPreconditionError:
    flows = flows[:_MOST_NAMED]
    error = make([_violation(flow, hidden) for flow in flows], count)
    error.about = {each for flow in flows for each in (flow.instance_id, *flow.named) if each}
    error.without = lambda ids: _refusal(make, flows, count, ids)
    return error


def _violation(flow: Blocking, hidden: Collection[str]) -> PreconditionViolation:
    if flow.instance_id in hidden:
        return PreconditionViolation(flow.status, HIDDEN, HIDDEN_BECAUSE)
    reason = flow.reason if flow.named.isdisjoint(hidden) else f"an upstream of it: {HIDDEN_BECAUSE}"
    return PreconditionViolation(flow.status, f"{flow.instance_name}/{flow.flow_kind}", reason)


def check_full_range(instance_name: str, computed_with: str, fingerprint: str) -> None:
    """Refuse a range of dates if another configuration computed the output.

    The dates outside the range would keep the values of the old configuration. `computed_with` is empty if the flow
    has no output yet; then any range is fine.

    Raises:
        FailedPreconditionError: FULL_RANGE_REQUIRED.
    """
    if computed_with and computed_with != fingerprint:
        raise full_range_required(instance_name)
