"""Decide when a failed run is retried."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from servicekit.backoff import backoff

CODE_CHANGED = "CODE_CHANGED"  # the error of a run whose worker has other code than is on record
NOT_RETRIED = frozenset({CODE_CHANGED})  # error types that a retry would end with again
# What a policy means that leaves a delay out.
DEFAULT_DELAY, DEFAULT_MAX_DELAY = timedelta(seconds=30), timedelta(hours=1)


@dataclass(frozen=True)
class RetryPolicy:
    """The policy after a failed run: how often and when to run again."""

    max_retries: int
    is_exponential: bool
    delay: timedelta
    max_delay: timedelta


def delay_before_retry(policy: RetryPolicy | None, attempt: int, error_type: str = "") -> timedelta | None:
    """Return the delay before the retry after failed attempt `attempt`, counted from 1; None if no retry follows."""
    if policy is None or attempt > policy.max_retries or error_type in NOT_RETRIED:
        return None
    first, longest = policy.delay.total_seconds(), policy.max_delay.total_seconds()
    return timedelta(seconds=backoff(attempt if policy.is_exponential else 1, first=first, longest=longest))
