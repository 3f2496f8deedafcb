"""When the data of instances that are gone is removed; it reads no clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from servicekit.backoff import backoff

_FIRST_DELAY, _LONGEST_DELAY = 60.0, 86_400.0  # seconds: a minute and a day


def deleted_until(now: datetime, grace_seconds: float) -> datetime:
    """Return until when an instance must have gone for its grace to be over."""
    return now - timedelta(seconds=grace_seconds)


def remove_time(delete_time: datetime, due_time: datetime, grace_seconds: float) -> datetime:
    """Return when data is removed, at the earliest."""
    return max(delete_time + timedelta(seconds=grace_seconds), due_time)


def retry_delay(attempts: int) -> timedelta:
    """Return how long to wait after a number of attempts: the wait doubles each time, up to a day."""
    return timedelta(seconds=backoff(max(attempts, 1), first=_FIRST_DELAY, longest=_LONGEST_DELAY))
