"""Freshness by time without calendars and tables: day by day, straight from the words of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from lineage_service.domain.freshness import Frequency, Policy

_DAY = timedelta(days=1)
_SATURDAY = 5


def is_late(policy: Policy, last_data_date: str, now: datetime) -> bool:
    """Return whether some period of Mondays to Fridays is due whose data is not there."""
    last = date.fromisoformat(last_data_date)
    return any(first > last and due <= now for first, due in _periods(policy, last, now))


def _periods(policy: Policy, last: date, now: datetime) -> Iterator[tuple[date, datetime]]:
    """Yield the first day of each period from about a day until now, and when its data is due."""
    day = last - 7 * _DAY
    while day <= now.date():
        is_daily = policy.frequency is Frequency.DAILY
        if day.weekday() < _SATURDAY if is_daily else day.weekday() == 0:
            end = day if is_daily else day + 4 * _DAY
            for _ in range(policy.due_lag):
                end += _DAY
                while end.weekday() >= _SATURDAY:
                    end += _DAY
            yield day, datetime.combine(end + _DAY, time(), UTC)
        day += _DAY
