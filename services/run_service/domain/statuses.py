"""The statuses of a run, and the events that lead from one to another."""

from __future__ import annotations

from enum import StrEnum

from run_service.domain.errors import run_ended, run_not_started, run_started


class RunStatus(StrEnum):
    """The statuses of a run; TRANSITIONS has the transitions between them."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunEvent(StrEnum):
    """An event in the life of a run that changes its status."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: dict[tuple[RunStatus, RunEvent], RunStatus] = {
    (RunStatus.PENDING, RunEvent.STARTED): RunStatus.RUNNING,
    (RunStatus.PENDING, RunEvent.FAILED): RunStatus.FAILED,  # dispatch expired, or the orchestrator gave up
    (RunStatus.PENDING, RunEvent.CANCELLED): RunStatus.CANCELLED,
    (RunStatus.RUNNING, RunEvent.COMPLETED): RunStatus.COMPLETED,
    (RunStatus.RUNNING, RunEvent.FAILED): RunStatus.FAILED,
    (RunStatus.RUNNING, RunEvent.CANCELLED): RunStatus.CANCELLED,
}
ACTIVE = frozenset({RunStatus.PENDING, RunStatus.RUNNING})
ENDED = frozenset(RunStatus) - ACTIVE


def next_status(run_id: str, status: RunStatus, event: RunEvent) -> RunStatus:
    """Return the status after the event.

    Raises:
        FailedPreconditionError: RUN_ENDED, RUN_NOT_STARTED for the completion of a pending run, or FENCED for a second start.
    """
    following = TRANSITIONS.get((status, event))
    if following is not None:
        return following
    if status in ENDED:
        raise run_ended(run_id, status)
    if status is RunStatus.PENDING:
        raise run_not_started(run_id)
    raise run_started(run_id)


def sources_of(event: RunEvent) -> frozenset[RunStatus]:
    """Return the statuses in which the event is possible; SQL updates check them."""
    return frozenset(status for status, happening in TRANSITIONS if happening is event)


def target_of(event: RunEvent) -> RunStatus:
    """Return the status that the event leads to."""
    (target,) = {following for (_, happening), following in TRANSITIONS.items() if happening is event}
    return target
