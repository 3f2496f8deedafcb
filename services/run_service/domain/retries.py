"""When a failed run is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

CODE_CHANGED = "CODE_CHANGED"  # a run's error where its worker has other code than is on record
NOT_RETRIED = frozenset({CODE_CHANGED})  # types of errors that the next attempt would end with, too


@dataclass(frozen=True)
class RetryPolicy:
    """What happens after a failed run."""

    max_retries: int
    is_exponential: bool
    delay: timedelta
    max_delay: timedelta


def retry_delay(policy: RetryPolicy | None, attempt: int, error_type: str = "") -> timedelta | None:
    """Return the wait before the run that follows failed attempt `attempt`, from 1; None where none follows."""
    if policy is None or attempt > policy.max_retries or error_type in NOT_RETRIED:
        return None
    doublings = attempt - 1 if policy.is_exponential else 0
    return min(policy.delay * (1 << doublings), policy.max_delay)


def dispatch_delay(attempts: int, longest: timedelta) -> timedelta:
    """Return the wait after `attempts` failed attempts (from 1) to reach the orchestrator."""
    return min(timedelta(seconds=0.5) * (1 << min(attempts - 1, 16)), longest)
