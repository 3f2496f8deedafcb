"""The facts that run events state, and the progress of a flow's runs that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from lineage_service.domain.keys import FlowKey
from lineage_service.domain.statuses import Outcome

_LONGEST_FAILURE = 500  # characters


class Phase(StrEnum):
    """The phase of a run that a run event reports."""

    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Failure(NamedTuple):
    """The reason why a run failed; both parts are empty if it did not, or if an earlier release recorded it."""

    type: str = ""
    message: str = ""  # in one line

    @property
    def text(self) -> str:
        """The failure as one text."""
        return f"{self.type}: {self.message}" if self.message else self.type


NO_FAILURE = Failure()


def failure_of(kind: str, message: str) -> Failure:
    """Return the failure that is shown for an error: the beginning of its message, in one line."""
    line = " ".join(message.split())
    return Failure(kind, line if len(line) <= _LONGEST_FAILURE else f"{line[:_LONGEST_FAILURE]}...")


class Input(NamedTuple):
    """The version of one upstream that a run read, named by the run that produced it; empty if there was none."""

    upstream: FlowKey
    role: str
    version_id: str


@dataclass(frozen=True)
class RunFact:
    """The facts that one run event states; only a completed run has the fields after `submit_time`.

    A refused run has the number 0, which is outside the sequence of the flow's runs.
    """

    flow: FlowKey
    run_id: str
    run_number: int
    phase: Phase
    submit_time: datetime | None
    fingerprint: str = ""
    inputs: tuple[Input, ...] = ()
    uri: str = ""
    physical_version: str = ""
    digest: str = ""
    last_data_date: str = ""
    rows_processed: int = 0
    event_id: str = ""
    # The run computed only a range of dates: it neither read nor validated data outside the range. False if its range covers all
    # dates that a run of all dates would have changed: then it counts as such a run.
    is_partial_range: bool = False
    instance_revision: int = 0
    # Hashes of how dependants read this output and the one before; empty if the run did not compute them.
    readers_hash: str = ""
    base_readers_hash: str = ""
    # Of the source before it was read; empty if the pipeline has none.
    source_token: str = ""
    # Why it failed.
    failure: Failure = NO_FAILURE
    # The run that produced the version on which this output builds, and the dates in which the two differ. Empty: every date may.
    base_run_id: str = ""
    change_start: str = ""
    change_end: str = ""
    # The digest that an earlier release would have given this output; empty if no base has one of that release.
    former_digest: str = ""


class Progress(NamedTuple):
    """The progress of a flow's runs; it depends only on the *set* of events, so their order does not matter."""

    run_number: int = 0
    last_run_id: str = ""
    last_run_time: datetime | None = None
    ended_run_number: int = 0
    outcome_run_number: int = 0
    outcome: str = Outcome.NEVER
    completed_run_number: int = 0
    # From the newest completed run of all dates; before the first such run, from the newest completed run.
    computed_fingerprint: str = ""
    rows_processed: int = 0
    # From the newest completed run: the instance revision that ran, and how dependants read the output.
    computed_revision: int = 0
    readers_hash: str = ""
    # The newest completed run of all dates, and the newest completed run that read only a range of dates.
    full_run_number: int = 0
    partial_run_number: int = 0
    # From the run that decided the outcome.
    failure_type: str = ""
    failure_message: str = ""
    # From the newest completed run.
    source_token: str = ""


def advance(progress: Progress, fact: RunFact) -> Progress:
    """Return the progress after one more event; an event that is older than the progress changes nothing."""
    number = fact.run_number
    if number > progress.run_number:
        progress = progress._replace(
            run_number=number, last_run_id=fact.run_id, last_run_time=fact.submit_time
        )
    if fact.phase is not Phase.ACTIVE and number > progress.ended_run_number:
        progress = progress._replace(ended_run_number=number)
    if fact.phase in {Phase.COMPLETED, Phase.FAILED} and number > progress.outcome_run_number:
        outcome = Outcome.SUCCEEDED if fact.phase is Phase.COMPLETED else Outcome.FAILED
        progress = progress._replace(
            outcome_run_number=number,
            outcome=outcome,
            failure_type=fact.failure.type,
            failure_message=fact.failure.message,
        )
    if fact.phase is Phase.COMPLETED and number > progress.completed_run_number:
        progress = progress._replace(
            completed_run_number=number,
            rows_processed=fact.rows_processed,
            computed_revision=fact.instance_revision,
            readers_hash=fact.readers_hash,
            source_token=fact.source_token,
        )
        if not progress.full_run_number:
            progress = progress._replace(computed_fingerprint=fact.fingerprint)
    if fact.phase is Phase.COMPLETED and not fact.is_partial_range and number > progress.full_run_number:
        progress = progress._replace(full_run_number=number, computed_fingerprint=fact.fingerprint)
    if fact.phase is Phase.COMPLETED and fact.is_partial_range and fact.inputs:
        progress = progress._replace(partial_run_number=max(number, progress.partial_run_number))
    return progress
