"""When a failed run is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from servicekit.backoff import backoff

CODE_CHANGED = "CODE_CHANGED"  # a run's error where its worker has other code than is on record
NOT_RETRIED = frozenset({CODE_CHANGED})  # types of errors that the next attempt would end with, too
# What a policy means that leaves a delay out.
DEFAULT_DELAY, DEFAULT_MAX_DELAY = timedelta(seconds=30), timedelta(hours=1)


@dataclass(frozen=True)
class RetryPolicy:
    """What happens after a failed run."""

    max_retries: int
    is_exponential: bool
    delay: timedelta
    max_delay: timedelta


def delay_before_retry(policy: RetryPolicy | None, attempt: int, error_type: str = "") -> timedelta | None:
    """Return the wait before the run that follows failed attempt `attempt`, from 1; None where none follows."""
    if policy is None or attempt > policy.max_retries or error_type in NOT_RETRIED:
        return None
    first, longest = policy.delay.total_seconds(), policy.max_delay.total_seconds()
    return timedelta(seconds=backoff(attempt if policy.is_exponential else 1, first=first, longest=longest))
