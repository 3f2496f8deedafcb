"""The status of a flow: activity and outcome, and one status word for both and freshness."""

from __future__ import annotations

from enum import StrEnum


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


def activity_of(run_number: int, ended_run_number: int) -> Activity:
    """Return whether the newest run is active; older runs have ended, since only one run may be active at a time."""
    return Activity.RUNNING if run_number > ended_run_number else Activity.IDLE
