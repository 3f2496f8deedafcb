"""Decide what happens to a run and its flow run, from the run's status and the flow run's state in the orchestrator."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from run_service.domain.statuses import ENDED, RunStatus


class FlowRunState(StrEnum):
    """The states of a flow run in the orchestrator that runs depend on."""

    WAITING = "WAITING"  # in the queue: no worker has taken it
    CLAIMED = "CLAIMED"  # a worker has taken it; its process may not exist yet
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"  # a user has cancelled it
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLED = "CANCELLED"


UNDER_WAY = frozenset({FlowRunState.CLAIMED, FlowRunState.RUNNING, FlowRunState.CANCELLING})
TERMINAL = frozenset(
    {FlowRunState.COMPLETED, FlowRunState.FAILED, FlowRunState.CRASHED, FlowRunState.CANCELLED}
)
_WANTS_CANCELLATION = frozenset({FlowRunState.CANCELLING, FlowRunState.CANCELLED})
_END_OF = {
    RunStatus.COMPLETED: FlowRunState.COMPLETED,
    RunStatus.FAILED: FlowRunState.FAILED,
    RunStatus.CANCELLED: FlowRunState.CANCELLED,
}


class Step(StrEnum):
    """The next step for an active run."""

    KEEP = "keep"  # nothing is wrong, or not for long enough
    DISPATCH_AGAIN = "dispatch again"  # another flow run takes the place of this one, which is ended
    CANCEL = "cancel"  # as by CancelRun: it was cancelled in the orchestrator
    FAIL = "fail"  # its flow run has ended without a report of the run's end
    GIVE_UP = "give up"  # workers have taken its flow runs, and none has started it


class Closing(StrEnum):
    """The next step for a flow run that has to end."""

    DONE = "done"
    LOOK_AGAIN = "look again"  # it has ended as it must; a late worker may still change that
    SET = "set"


@dataclass(frozen=True)
class Patience:
    """The times that run-service waits before it acts on a difference."""

    start: timedelta  # from the claim of a flow run to the start of its run
    report: timedelta  # from the end of a flow run to the report of its run's end


def next_step(
    status: RunStatus,
    state: FlowRunState | None,
    age: timedelta,
    *,
    is_last: bool,
    patience: Patience,
) -> Step:
    """Decide about a run whose flow run has been in `state` for `age`; the state is None if the flow run does not exist.

    A running run also has a lease: an executor that stops reporting loses the run, independently of this decision.
    A flow run may wait in the queue, because no worker is there or all are busy. With `is_last`, the run gets no
    further flow run after one that no worker starts.
    """
    if status in ENDED:
        return Step.KEEP
    if state in _WANTS_CANCELLATION:
        return Step.CANCEL
    if status is RunStatus.PENDING:
        return _next_of_pending(state, age, is_last=is_last, patience=patience)
    # While the executor reports, an unfinished or missing flow run in the orchestrator does not matter.
    return Step.FAIL if state in TERMINAL and age >= patience.report else Step.KEEP


def _next_of_pending(
    state: FlowRunState | None, age: timedelta, *, is_last: bool, patience: Patience
) -> Step:
    if state is None:
        return Step.DISPATCH_AGAIN
    if state is FlowRunState.WAITING:
        return Step.KEEP
    if state in UNDER_WAY:
        if age < patience.start:
            return Step.KEEP
        return Step.GIVE_UP if is_last else Step.DISPATCH_AGAIN
    if state is FlowRunState.CRASHED and not is_last:
        return Step.DISPATCH_AGAIN  # its process died before it began
    return Step.FAIL if age >= patience.report else Step.KEEP


def end_of(status: RunStatus) -> FlowRunState:
    """Return the state in which the flow run of an ended run must end."""
    return _END_OF[status]


def close(wanted: FlowRunState, state: FlowRunState | None, *, is_settled: bool) -> Closing:
    """Decide about a flow run that must end as `wanted`; `state` is None if it does not exist.

    The orchestrator says CRASHED for a failure outside of the flow; that counts as FAILED.
    """
    if state is None:
        return Closing.DONE
    if state is wanted or (wanted is FlowRunState.FAILED and state is FlowRunState.CRASHED):
        return Closing.DONE if is_settled else Closing.LOOK_AGAIN
    return Closing.SET
