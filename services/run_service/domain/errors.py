"""What run-service refuses, and in which words; a run's status is given as its word."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from servicekit.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionViolation,
    UnavailableError,
    UnimplementedError,
)

_SHOWN = 10  # flows that one message names


def invalid_fields(violations: Sequence[FieldViolation], text: str = "") -> InvalidArgumentError:
    """Return the refusal INVALID_ARGUMENT; without a text it says what is wrong with each field."""
    told = text or "; ".join(f"{violation.field} {violation.description}" for violation in violations)
    return InvalidArgumentError("INVALID_ARGUMENT", told, field_violations=violations)


def force_reason_required() -> InvalidArgumentError:
    """Return the refusal FORCE_REASON_REQUIRED."""
    return InvalidArgumentError("FORCE_REASON_REQUIRED", "say why the run is forced")


def allow_deletion_reason_required() -> InvalidArgumentError:
    """Return the refusal ALLOW_DELETION_REASON_REQUIRED."""
    text = "say why the run may delete"
    return InvalidArgumentError(
        "ALLOW_DELETION_REASON_REQUIRED",
        text,
        field_violations=[FieldViolation("allow_deletion_reason", text, "ALLOW_DELETION_REASON_REQUIRED")],
    )


def flow_not_found(instance_id: str) -> NotFoundError:
    """Return the refusal FLOW_NOT_FOUND of an instance that has no such flow."""
    return NotFoundError(
        "FLOW_NOT_FOUND", f"instance {instance_id} has no such flow", metadata={"instance_id": instance_id}
    )


def kind_has_no_flow(instance_kind: str, flow_kind: str) -> NotFoundError:
    """Return the refusal FLOW_NOT_FOUND of a flow that no instance of the kind has."""
    return NotFoundError("FLOW_NOT_FOUND", f"a {instance_kind} instance has no {flow_kind} flow")


def unsupported_flow(flow_kind: str, *, has_optimizer: bool) -> UnimplementedError:
    """Return the refusal UNSUPPORTED_FLOW."""
    return UnimplementedError(
        "UNSUPPORTED_FLOW",
        f"{flow_kind} flows {'with an optimizer ' if has_optimizer else ''}are not computed yet",
        metadata={"flow_kind": flow_kind},
    )


def upstreams_not_ready(flows: Sequence[PreconditionViolation]) -> FailedPreconditionError:
    """Return the refusal UPSTREAM_NOT_READY, naming the flows."""
    return FailedPreconditionError(
        "UPSTREAM_NOT_READY",
        f"upstream flows are not ready: {_names(flows)}",
        metadata={"blocking": str(len(flows))},
        preconditions=flows,
    )


def missing_input(flows: Sequence[PreconditionViolation]) -> FailedPreconditionError:
    """Return the refusal MISSING_INPUT, naming the flows."""
    return FailedPreconditionError(
        "MISSING_INPUT",
        f"inputs have no version to read; force does not help: {_names(flows)}",
        metadata={"blocking": str(len(flows))},
        preconditions=flows,
    )


def _names(flows: Sequence[PreconditionViolation]) -> str:
    named = ", ".join(f"{flow.subject} is {flow.type}" for flow in flows[:_SHOWN])
    return named + (", ..." if len(flows) > _SHOWN else "")


def full_range_required(instance_name: str) -> FailedPreconditionError:
    """Return the refusal FULL_RANGE_REQUIRED."""
    text = (
        f"the configuration of {instance_name} changed since it was computed: a range of dates would leave "
        "the others as the old one made them; submit a run without start and end"
    )
    return FailedPreconditionError(
        "FULL_RANGE_REQUIRED",
        text,
        preconditions=[PreconditionViolation("FULL_RANGE_REQUIRED", instance_name, text)],
    )


def instance_deleting(instance_id: str) -> FailedPreconditionError:
    """Return the refusal INSTANCE_DELETING."""
    return FailedPreconditionError(
        "INSTANCE_DELETING", f"instance {instance_id} is being deleted", metadata={"instance_id": instance_id}
    )


def run_active(run_id: str, run_number: int) -> AlreadyExistsError:
    """Return the refusal RUN_ACTIVE, naming the active run."""
    return AlreadyExistsError(
        "RUN_ACTIVE",
        f"run {run_number} of this flow is active: {run_id}",
        metadata={"run_id": run_id, "run_number": str(run_number)},
    )


def runs_come_too_fast(instance_name: str, flow_kind: str) -> UnavailableError:
    """Return the refusal CONCURRENT_UPDATE of a run whose admission was overtaken by others."""
    text = f"runs of {instance_name}/{flow_kind} come faster than they are admitted; retry"
    return UnavailableError("CONCURRENT_UPDATE", text)


def run_not_found(run_id: str) -> NotFoundError:
    """Return the refusal RUN_NOT_FOUND."""
    return NotFoundError("RUN_NOT_FOUND", f"there is no run {run_id}", metadata={"run_id": run_id})


def run_ended(run_id: str, status: str, *, is_told: bool = True) -> FailedPreconditionError:
    """Return the refusal RUN_ENDED; a flow run that is not the run's is not told the status, to end alike."""
    metadata = {"run_id": run_id} | ({"status": str(status)} if is_told else {})
    return FailedPreconditionError("RUN_ENDED", f"run {run_id} has ended: {status}", metadata=metadata)


def run_not_ended(run_id: str) -> FailedPreconditionError:
    """Return the refusal RUN_NOT_ENDED."""
    return FailedPreconditionError(
        "RUN_NOT_ENDED", f"run {run_id} has not ended", metadata={"run_id": run_id}
    )


def run_not_started(run_id: str) -> FailedPreconditionError:
    """Return the refusal RUN_NOT_STARTED."""
    return FailedPreconditionError(
        "RUN_NOT_STARTED", f"run {run_id} has not started", metadata={"run_id": run_id}
    )


def run_started(run_id: str) -> FailedPreconditionError:
    """Return the refusal FENCED of a second start."""
    return FailedPreconditionError("FENCED", f"run {run_id} has been started", metadata={"run_id": run_id})


def fenced(run_id: str, status: str | None = None) -> FailedPreconditionError:
    """Return the refusal FENCED of an executor that does not hold the run."""
    metadata = {"run_id": run_id} | ({"status": str(status)} if status is not None else {})
    return FailedPreconditionError("FENCED", f"this executor does not hold run {run_id}", metadata=metadata)


def flow_run_given_up(flow_run_id: str) -> FailedPreconditionError:
    """Return the refusal FENCED of a flow run whose scheduled time another one has."""
    text = f"flow run {flow_run_id} was given up before it started; its tick is another one's"
    return FailedPreconditionError("FENCED", text)


def instance_paused(instance_name: str) -> FailedPreconditionError:
    """Return the refusal INSTANCE_PAUSED."""
    return FailedPreconditionError("INSTANCE_PAUSED", f"instance {instance_name} is paused")


def tick_too_late(grace_seconds: float) -> FailedPreconditionError:
    """Return the refusal TICK_MISSED of a tick that came too late."""
    return FailedPreconditionError("TICK_MISSED", f"the tick came more than {grace_seconds:g} seconds late")


def tick_not_started() -> FailedPreconditionError:
    """Return the refusal TICK_MISSED of a tick whose worker died before it started the run."""
    return FailedPreconditionError(
        "TICK_MISSED",
        "a worker claimed the tick's flow run and did not start it, and the schedule catches up with nothing",
    )


def tick_skipped(waiting: datetime) -> FailedPreconditionError:
    """Return the refusal TICK_SKIPPED, naming the tick that waits."""
    return FailedPreconditionError("TICK_SKIPPED", f"the tick of {waiting.isoformat()} waits already")


def tick_superseded(latest: datetime) -> FailedPreconditionError:
    """Return the refusal TICK_SUPERSEDED, naming the tick that is run."""
    return FailedPreconditionError("TICK_SUPERSEDED", f"the tick of {latest.isoformat()} takes its place")


def tick_cancelled() -> FailedPreconditionError:
    """Return the refusal TICK_CANCELLED."""
    return FailedPreconditionError("TICK_CANCELLED", "the tick's flow run was cancelled in Prefect")


def code_changed_meanwhile() -> AbortedError:
    """Return the refusal CONCURRENT_UPDATE of a hash that somebody else has accepted first."""
    return AbortedError("CONCURRENT_UPDATE", "the code on record has changed a moment ago; look again")


def dependency_unavailable(message: str) -> UnavailableError:
    """Return the refusal DEPENDENCY_UNAVAILABLE."""
    return UnavailableError("DEPENDENCY_UNAVAILABLE", f"a service that admission needs says: {message}")


def dependency_refused(message: str) -> InternalError:
    """Return the error INTERNAL of a call that another service refuses: the fault is this service's."""
    return InternalError("INTERNAL", f"a service that admission needs refused: {message}")
