"""What the service refuses, and in which words; a status is given as its word."""

from __future__ import annotations

from servicekit.errors import AlreadyExistsError, FailedPreconditionError, NotFoundError


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


def run_active(run_id: str, run_number: int) -> AlreadyExistsError:
    """Return the refusal RUN_ACTIVE, naming the active run."""
    return AlreadyExistsError(
        "RUN_ACTIVE",
        f"run {run_number} of this flow is active: {run_id}",
        metadata={"run_id": run_id, "run_number": str(run_number)},
    )


def instance_deleting(instance_id: str) -> FailedPreconditionError:
    """Return the refusal INSTANCE_DELETING."""
    return FailedPreconditionError(
        "INSTANCE_DELETING", f"instance {instance_id} is being deleted", metadata={"instance_id": instance_id}
    )


def fenced(run_id: str, status: str | None = None) -> FailedPreconditionError:
    """Return the refusal FENCED."""
    metadata = {"run_id": run_id} | ({"status": str(status)} if status is not None else {})
    return FailedPreconditionError("FENCED", f"this executor does not hold run {run_id}", metadata=metadata)
