"""The stored flows and the edges between them, and how they change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from lineage_service.domain.freshness import is_late
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Failure
from lineage_service.domain.statuses import Activity, Outcome, Word, activity_of, word_of


@dataclass(slots=True, eq=False)
class Flow:
    """A stored flow, with the name of its instance and its current version; compared by identity.

    Nothing changes one. It is not frozen, because a frozen object takes six times as long to make, and some answers make a million.
    """

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
    is_fresh: bool
    revision: int
    computed_revision: int
    readers_hash: str
    full_run_number: int
    partial_run_number: int
    # For a flow that is not fresh: the revision at which it became so; 0 if that was not recorded yet.
    stale_revision: int
    # What its freshness policy says; empty, None and false without one.
    expected_data_date: str
    late_since_time: datetime | None
    blocks_readers: bool
    version_run_number: int  # of the first run that produced the current version
    invalidated_by: str = ""  # unknown if an earlier release recorded the invalidation
    failure_type: str = ""
    failure_message: str = ""
    # The dates in which the current version differs from the one before; empty: every date may.
    change_start: str = ""
    change_end: str = ""
    # Somebody declared the output right for this configuration; None: nobody did, or a run has completed since.
    accepted_fingerprint: str | None = None
    accepted_reason: str | None = None
    accepted_by: str | None = None
    accepted_time: datetime | None = None
    source_token: str = ""  # of the source that the newest completed run has read
    probed_run_number: int = 0  # the newest completed run when the source was probed last
    probed_token: str = ""

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
        """Return whether the newest output belongs to another configuration: neither right for this one nor accepted."""
        return not self._is_right_for_config and self.fingerprint != self.accepted_fingerprint

    @property
    def _is_right_for_config(self) -> bool:
        """Return whether the newest output was computed with the present configuration, or checked for it."""
        if self.fingerprint == self.computed_fingerprint:
            return True
        verified = (self.verified_fingerprint, self.verified_run_number)
        return verified == (self.fingerprint, self.completed_run_number)

    @property
    def is_invalidated(self) -> bool:
        """Return whether the output was declared invalid and no run of all dates has completed since."""
        return self.full_run_number <= self.invalidated_run_number

    @property
    def is_late(self) -> bool:
        """Return whether its data is older than its freshness policy expects."""
        return is_late(self.last_data_date, self.expected_data_date)

    @property
    def brought_nothing(self) -> bool:
        """Return whether its last run succeeded and produced the version that was there before."""
        return self.outcome == Outcome.SUCCEEDED and self.completed_run_number > self.version_run_number

    @property
    def failure(self) -> Failure:
        """The reason why the last run failed."""
        return Failure(self.failure_type, self.failure_message)

    @property
    def is_partial(self) -> bool:
        """Return whether a run has read only a range of dates since the last run of all dates."""
        return self.partial_run_number > self.full_run_number

    @property
    def is_source_changed(self) -> bool:
        """Return whether the source has another token than the newest completed run has read."""
        is_probed = bool(self.source_token) and self.probed_run_number == self.completed_run_number
        return is_probed and self.probed_token != self.source_token

    @property
    def right_fingerprint(self) -> str:
        """The fingerprint of the configuration for which the newest output is valid; an acceptance does not count."""
        return self.fingerprint if self._is_right_for_config else self.computed_fingerprint


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
    accepted_version: int | None = None  # None: none is accepted

    @property
    def compared_version(self) -> int:
        """The version of the upstream with which freshness is compared."""
        return self.consumed_version if self.accepted_version is None else self.accepted_version


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
    expected_data_date: str
    late_since_time: int | None
    brought_nothing: bool
    failure_type: str = ""
    failure_message: str = ""
    accepted_reason: str | None = None
    accepted_by: str | None = None
    accepted_time: int | None = None
