"""The state of a flow: activity, outcome and freshness, one status word for all three, and how events change them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

_LONGEST_FAILURE = 500  # characters


class Activity(StrEnum):
    """The state of a flow's activity: idle or running."""

    IDLE = "idle"
    RUNNING = "running"  # a run is pending or running


class Outcome(StrEnum):
    """The outcome of the last run; cancelled runs do not count."""

    NEVER = "never"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Word(StrEnum):
    """The status of a flow, summed up in one word."""

    ERROR = "error"
    STALE = "stale"
    RUNNING = "running"
    NOT_INITIALIZED = "not_initialized"
    READY = "ready"


def word_of(activity: Activity, outcome: Outcome, is_fresh: bool) -> Word:
    """Return the status word of a flow; the first rule that matches decides."""
    if activity is Activity.RUNNING:
        return Word.RUNNING
    if outcome is Outcome.FAILED:
        return Word.ERROR
    if outcome is Outcome.NEVER:
        return Word.NOT_INITIALIZED
    return Word.READY if is_fresh else Word.STALE


class FlowKey(NamedTuple):
    """The identity of a flow within its tenant; `flow_kind` is the lower-case name, like `refresh`."""

    instance_id: str
    flow_kind: str


# The number of the protobuf EdgeKind of an upstream whose definition and settings alone count. Such an edge is stored and
# shown, but never connected: no version is read over it, so it moves, blocks and orders nothing.
SCHEMA = 2


class EdgeSpec(NamedTuple):
    """One upstream to which an instance's revision connects a flow; `kind` is the number of the protobuf EdgeKind."""

    upstream: FlowKey
    role: str
    kind: int


class FlowSpec(NamedTuple):
    """One flow as an instance's revision defines it."""

    flow_kind: str
    fingerprint: str
    upstreams: tuple[EdgeSpec, ...]
    fingerprint_change: str = ""
    # A check found that the output of this run equals what a run with that fingerprint would produce.
    verified_run_number: int = 0
    verified_fingerprint: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The part of an instance that lineage needs, as of one revision; a newer revision replaces all of it."""

    instance_id: str
    revision: int
    name: str
    kind: int
    flows: tuple[FlowSpec, ...]
    is_deleted: bool = False
    event_id: str = ""


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
    # The run computed only a range of dates: it neither read nor validated data outside the range.
    is_partial_range: bool = False
    instance_revision: int = 0
    # Hashes of how dependants read this output and the one before; empty if the run did not compute them.
    readers_hash: str = ""
    base_readers_hash: str = ""
    # Why it failed.
    failure: Failure = NO_FAILURE


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
        )
        if not progress.full_run_number:
            progress = progress._replace(computed_fingerprint=fact.fingerprint)
    if fact.phase is Phase.COMPLETED and not fact.is_partial_range and number > progress.full_run_number:
        progress = progress._replace(full_run_number=number, computed_fingerprint=fact.fingerprint)
    if fact.phase is Phase.COMPLETED and fact.is_partial_range and fact.inputs:
        progress = progress._replace(partial_run_number=max(number, progress.partial_run_number))
    return progress


def activity_of(run_number: int, ended_run_number: int) -> Activity:
    """Return whether the newest run is active; older runs have ended, since only one run may be active at a time."""
    return Activity.RUNNING if run_number > ended_run_number else Activity.IDLE


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """A stored flow, with the name of its instance and its current version; compared by identity."""

    flow_id: int
    instance_id: str
    flow_kind: str
    instance_name: str
    instance_kind: int
    instance_revision: int
    is_deleted: bool
    is_defined: bool
    fingerprint: str
    fingerprint_change: str
    computed_fingerprint: str
    verified_run_number: int
    verified_fingerprint: str
    version: int
    version_id: str
    uri: str
    physical_version: str
    digest: str
    last_data_date: str
    run_number: int
    last_run_id: str
    last_run_time: datetime | None
    ended_run_number: int
    outcome_run_number: int
    outcome: str
    completed_run_number: int
    rows_processed: int
    invalidated_run_number: int
    invalidated_reason: str
    overdue_date: str
    is_fresh: bool
    revision: int
    computed_revision: int
    readers_hash: str
    full_run_number: int
    partial_run_number: int
    # For a flow that is not fresh: the revision at which it became so; 0 if that was not recorded yet.
    stale_revision: int
    invalidated_by: str = ""  # unknown if an earlier release recorded the invalidation
    failure_type: str = ""
    failure_message: str = ""

    @property
    def key(self) -> FlowKey:
        """The identity of the flow."""
        return FlowKey(self.instance_id, self.flow_kind)

    @property
    def activity(self) -> Activity:
        """Return whether a run of the flow is active."""
        return activity_of(self.run_number, self.ended_run_number)

    @property
    def word(self) -> Word:
        """The status word of the flow."""
        return word_of(self.activity, Outcome(self.outcome), self.is_fresh)

    @property
    def has_other_config(self) -> bool:
        """Return whether the newest output belongs to another configuration: neither computed with nor checked for this one."""
        if self.fingerprint == self.computed_fingerprint:
            return False
        verified = (self.verified_fingerprint, self.verified_run_number)
        return verified != (self.fingerprint, self.completed_run_number)

    @property
    def is_invalidated(self) -> bool:
        """Return whether the output was declared invalid and no run of all dates has completed since."""
        return self.full_run_number <= self.invalidated_run_number

    @property
    def failure(self) -> Failure:
        """The reason why the last run failed."""
        return Failure(self.failure_type, self.failure_message)

    @property
    def is_partial(self) -> bool:
        """Return whether a run has read only a range of dates since the last run of all dates."""
        return self.partial_run_number > self.full_run_number

    @property
    def right_fingerprint(self) -> str:
        """The fingerprint of the configuration for which the newest output is valid."""
        return self.computed_fingerprint if self.has_other_config else self.fingerprint


class Upstream(NamedTuple):
    """The fields of a flow that a cause needs; cheaper to read than a whole Flow when there are many."""

    flow_id: int
    instance_id: str
    flow_kind: str
    instance_name: str
    is_deleted: bool
    is_defined: bool
    version: int

    @property
    def key(self) -> FlowKey:
        """The identity of the flow."""
        return FlowKey(self.instance_id, self.flow_kind)


class Edge(NamedTuple):
    """A dependency between two flows: connected by the newest revision, consumed by the newest run, or both."""

    upstream_id: int
    downstream_id: int
    role: str
    kind: int
    is_connected: bool
    consumed_version: int


class Move(NamedTuple):
    """A flow whose current version changed."""

    flow_id: int
    from_version: int
    to_version: int


class Change(NamedTuple):
    """The state of a flow after a change, as published in FlowStatusesChanged; times are in microseconds."""

    flow_id: int
    instance_id: str
    flow_kind: str
    is_defined: bool
    run_number: int
    ended_run_number: int
    outcome: str
    is_fresh: bool
    last_run_id: str | None
    last_run_time: int | None
    version: int
    last_data_date: str
    rows_processed: int
    overdue_date: str
    failure_type: str = ""
    failure_message: str = ""
