"""The rules for when the data of deleted instances is removed."""

from __future__ import annotations

from datetime import datetime, timedelta

from servicekit.backoff import backoff

_FIRST_DELAY, _LONGEST_DELAY = 60.0, 86_400.0  # in seconds: one minute and one day


def deleted_until(now: datetime, grace_seconds: float) -> datetime:
    """Return the latest deletion time whose grace period has ended by now."""
    return now - timedelta(seconds=grace_seconds)


def remove_time(delete_time: datetime, due_time: datetime, grace_seconds: float) -> datetime:
    """Return the earliest time at which the data may be removed."""
    return max(delete_time + timedelta(seconds=grace_seconds), due_time)


def retry_delay(attempts: int) -> timedelta:
    """Return the wait after a number of failed attempts: it doubles with each attempt, up to a day."""
    return timedelta(seconds=backoff(max(attempts, 1), first=_FIRST_DELAY, longest=_LONGEST_DELAY))
