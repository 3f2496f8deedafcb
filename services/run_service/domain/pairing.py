"""What becomes of a run and of its flow run, by what we hold of the one and the orchestrator says of the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from run_service.domain.statuses import ENDED, RunStatus


class FlowRunState(StrEnum):
    """The orchestrator's view of a flow run, as far as it matters here."""

    WAITING = "WAITING"  # in the queue: no worker has taken it
    CLAIMED = "CLAIMED"  # a worker has taken it; its process may not exist yet
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"  # somebody wants it cancelled
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
    """What is done with an active run."""

    KEEP = "keep"  # nothing is wrong, or not for long enough
    DISPATCH_AGAIN = "dispatch again"  # another flow run takes the place of this one, which is ended
    CANCEL = "cancel"  # as by CancelRun: it was cancelled in the orchestrator
    FAIL = "fail"  # its flow run has ended, and nobody reported the run's end
    GIVE_UP = "give up"  # workers have taken its flow runs, and none has started it


class Closing(StrEnum):
    """What is done with a flow run that has to end."""

    DONE = "done"
    LOOK_AGAIN = "look again"  # it has ended rightly; somebody who comes late may still change that
    SET = "set"


@dataclass(frozen=True)
class Patience:
    """How long what is wrong may stay so."""

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
    """Return what to do with a run whose flow run has been in `state` for `age`; None: it is gone.

    A running run has a lease beside: whoever holds it and is not heard of loses the run, whatever is said here.
    A flow run that waits in the queue may wait: no worker is there, or all are busy. With `is_last`, the run gets
    no further flow run because of workers that do not start it.
    """
    if status in ENDED:
        return Step.KEEP
    if state in _WANTS_CANCELLATION:
        return Step.CANCEL
    if status is RunStatus.PENDING:
        return _next_of_pending(state, age, is_last=is_last, patience=patience)
    # While the executor is heard of, what the orchestrator takes for unfinished or forgets does not matter.
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
    """Return how the flow run of an ended run has to end."""
    return _END_OF[status]


def close(wanted: FlowRunState, state: FlowRunState | None, *, is_settled: bool) -> Closing:
    """Return what to do with a flow run that has to end as `wanted`; None: it is gone.

    A crash is how the orchestrator calls a failure of what was outside of the flow.
    """
    if state is None:
        return Closing.DONE
    if state is wanted or (wanted is FlowRunState.FAILED and state is FlowRunState.CRASHED):
        return Closing.DONE if is_settled else Closing.LOOK_AGAIN
    return Closing.SET
