"""Windows of time and the history that is kept; pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from status_service.domain.errors import history_not_kept, window_is_empty

DEFAULT_WINDOWS = (timedelta(hours=24), timedelta(days=7), timedelta(days=30))


@dataclass(frozen=True)
class Window:
    """A time from its start up to its end, which does not belong to it."""

    start_time: datetime
    end_time: datetime


def window_of(
    field: str, start_time: datetime, end_time: datetime | None, now: datetime, kept_since: datetime
) -> Window:
    """Return the part of a window that has come already.

    Raises:
        OutOfRangeError: STATUS_HISTORY_NOT_KEPT; it begins before the history that is kept.
        InvalidArgumentError: It is empty.
    """
    window = Window(start_time, now if end_time is None else min(end_time, now))
    if start_time < kept_since:
        raise history_not_kept(field, kept_since)
    if window.start_time >= window.end_time:
        raise window_is_empty(field)
    return window
