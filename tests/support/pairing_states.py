"""Every state in which a run, its flow run and the process between them can be left, and what becomes of it.

`ours` is the run's status, `prefect` the state of its flow run (GONE: it was deleted). `at once` is what run-service
does when it sees this, `in time` once it has stayed so for longer than it may, `last` the same where the run gets no
further flow run. `dead` is how the run ends where the process that had it is dead, and another worker takes what is
dispatched; `alive` where it lives, and reports a moment later. The flow run then ends as the run did.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from run_service.domain.pairing import FlowRunState, Step
from run_service.domain.statuses import RunStatus

_TABLE = """
ours      | prefect    | at once        | in time        | last           | dead                     | alive
pending   | GONE       | dispatch again | dispatch again | dispatch again | completed                | completed
pending   | WAITING    | keep           | keep           | keep           | completed                | completed
pending   | CLAIMED    | keep           | dispatch again | give up        | completed                | completed
pending   | RUNNING    | keep           | dispatch again | give up        | completed                | completed
pending   | CANCELLING | cancel         | cancel         | cancel         | cancelled                | cancelled
pending   | COMPLETED  | keep           | fail           | fail           | ORCHESTRATOR_COMPLETED   | completed
pending   | FAILED     | keep           | fail           | fail           | ORCHESTRATOR_FAILED      | completed
pending   | CRASHED    | dispatch again | dispatch again | fail           | completed                | completed
pending   | CANCELLED  | cancel         | cancel         | cancel         | cancelled                | cancelled
running   | GONE       | keep           | keep           | keep           | WORKER_LOST              | completed
running   | WAITING    | keep           | keep           | keep           | completed                | completed
running   | CLAIMED    | keep           | keep           | keep           | WORKER_LOST              | completed
running   | RUNNING    | keep           | keep           | keep           | WORKER_LOST              | completed
running   | CANCELLING | cancel         | cancel         | cancel         | cancelled                | cancelled
running   | COMPLETED  | keep           | fail           | fail           | ORCHESTRATOR_COMPLETED   | completed
running   | FAILED     | keep           | fail           | fail           | ORCHESTRATOR_FAILED      | completed
running   | CRASHED    | keep           | fail           | fail           | ORCHESTRATOR_CRASHED     | completed
running   | CANCELLED  | cancel         | cancel         | cancel         | cancelled                | cancelled
completed | *          | keep           | keep           | keep           | completed                | completed
failed    | *          | keep           | keep           | keep           | ValueError               | ValueError
cancelled | *          | keep           | keep           | keep           | cancelled                | cancelled
"""


@dataclass(frozen=True)
class Row:
    """One combination; how a run ends is its status, or the type of the error with which it failed."""

    ours: RunStatus
    prefect: FlowRunState | None
    at_once: Step
    in_time: Step
    last: Step
    dead: str
    alive: str


def _rows() -> list[Row]:
    rows = []
    for line in _TABLE.strip().splitlines()[1:]:
        ours, prefect, at_once, in_time, last, dead, alive = (word.strip() for word in line.split("|"))
        states = [*FlowRunState, None] if prefect == "*" else [_state(prefect)]
        rows += [
            Row(RunStatus(ours), state, Step(at_once), Step(in_time), Step(last), dead, alive)
            for state in states
        ]
    return rows


def _state(word: str) -> FlowRunState | None:
    return None if word == "GONE" else FlowRunState(word)


ROWS = _rows()
COMBINATIONS = list(itertools.product(RunStatus, [*FlowRunState, None]))
