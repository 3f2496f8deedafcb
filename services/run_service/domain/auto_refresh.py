"""Decide whether a flow follows its upstream flows by itself; docs/auto_refresh.md has the rule."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

FORCE_REASON = "auto_refresh"  # of a run over upstream flows that are not READY


class Mode(StrEnum):
    """The upstream flows that must be READY before a flow follows."""

    OFF = "off"
    ALL_UPSTREAMS = "all_upstreams"
    ANY_UPSTREAM = "any_upstream"


@dataclass(frozen=True)
class Facts:
    """A flow with the facts that decide about it, read at one moment."""

    mode: Mode
    is_paused: bool = False
    is_busy: bool = False  # a run is active, or a scheduled time waits
    # A cause of its own, or a version that it has not read: a run of it ends that. Late data is none.
    needs_run: bool = False
    has_moved: bool = False  # a direct upstream has a version that it has not read
    is_ready: bool = False  # nothing is to be done for it, here or above
    all_ready: bool = True  # all its transitive upstreams are READY or count as ready
    misses_input: bool = False  # a direct upstream has no version to read
    has_failed: bool = False  # its newest run failed or was cancelled
    has_changed: bool = False  # since that run: a version above it, its revision, or the code on record
    blocking: Collection[str] = field(default_factory=frozenset)  # the instances that are not READY
    last_time: datetime | None = None  # when it last ran by itself
    min_interval: timedelta = timedelta(0)


class Step(StrEnum):
    """The step that follows for a flow."""

    FORGET = "is not followed up any more"
    HOLD = "does not run until somebody changes something"
    REST = "is looked at again when its state changes"
    AWAIT = "is looked at again when one of its upstream flows changes"
    DELAY = "is looked at again when the minimum interval is over"
    RUN = "runs"
    RUN_FORCED = "runs over upstream flows that are not READY"


@dataclass(frozen=True)
class Verdict:
    """The next step for a flow; with the time for DELAY."""

    step: Step
    time: datetime | None = None


def judge(facts: Facts, now: datetime) -> Verdict:
    """Decide whether a flow runs by itself now, and if not, what may change that."""
    if facts.mode is Mode.OFF:
        return Verdict(Step.FORGET)
    if facts.is_paused or (facts.has_failed and not facts.has_changed and not facts.is_busy):
        return Verdict(Step.HOLD)
    if facts.is_busy:
        return Verdict(Step.REST)
    if facts.needs_run:
        return _judge_upstreams(facts, now)
    # It is READY, or is made so by its upstream flows; else nothing but late data keeps it from being READY.
    return Verdict(Step.REST if facts.is_ready or not facts.all_ready else Step.HOLD)


def _judge_upstreams(facts: Facts, now: datetime) -> Verdict:
    follows_one = facts.mode is Mode.ANY_UPSTREAM and facts.has_moved and not facts.misses_input
    if not facts.all_ready and not follows_one:
        return Verdict(Step.AWAIT)
    if facts.last_time is not None and now < (due_time := facts.last_time + facts.min_interval):
        return Verdict(Step.DELAY, due_time)
    return Verdict(Step.RUN if facts.all_ready else Step.RUN_FORCED)
