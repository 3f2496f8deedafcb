"""The rules of freshness by time: which date a policy expects when, and whether data is late; pure functions."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple
from zoneinfo import ZoneInfo

from lineage_service.domain.calendars import WEEKDAYS, Calendar


class Frequency(StrEnum):
    """The frequency with which new data is due, hence the length of a period."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


@dataclass(frozen=True)
class Policy:
    """The rule of which date should be there by now; a policy that is never overdue is none."""

    frequency: Frequency
    calendar: str = WEEKDAYS
    grace: dt.timedelta = dt.timedelta()
    due_time: str = ""  # HH:MM; empty: the end of the business day
    timezone: str = ""  # of the due time; empty: that of the calendar
    due_lag: int = 0  # business days
    blocks_readers: bool = False


class Judgement(NamedTuple):
    """The answer of a policy for one flow at one moment."""

    # The first day of the newest period that had to be there by now; empty: none.
    expected_data_date: str = ""
    # When the oldest period that is missing was due; None: the data is not late.
    late_since_time: dt.datetime | None = None
    # When the expected date changes next; None: the calendar does not say.
    next_due_time: dt.datetime | None = None


@dataclass(frozen=True)
class Timetable:
    """The periods of a policy in order: the first day of each, and when its data was due and its grace was over."""

    grace: dt.timedelta
    first_days: tuple[dt.date, ...]
    ends: tuple[dt.datetime, ...]

    def judge(
        self, now: dt.datetime, last_data_date: str, judged_from: dt.datetime | None = None
    ) -> Judgement:
        """Judge data whose newest date is known; periods that fell due until `judged_from` are not expected."""
        count = bisect_right(self.ends, now)
        next_due_time = self.ends[count] if count < len(self.ends) else None
        if not count or (judged_from is not None and self.ends[count - 1] <= judged_from):
            return Judgement(next_due_time=next_due_time)
        expected = self.first_days[count - 1].isoformat()
        if not is_late(last_data_date, expected):
            return Judgement(expected, None, next_due_time)
        missing = bisect_right(self.first_days, dt.date.fromisoformat(last_data_date[:10]))
        return Judgement(expected, self.ends[missing] - self.grace, next_due_time)


def is_late(last_data_date: str, expected_data_date: str) -> bool:
    """Return whether the newest date is older than the expected one; data without a date is not judged."""
    return "" < last_data_date < expected_data_date


def first_day_of(frequency: Frequency, day: dt.date) -> dt.date:
    """Return the first day of the period to which a day belongs."""
    match frequency:
        case Frequency.DAILY:
            return day
        case Frequency.WEEKLY:
            return day - dt.timedelta(days=day.weekday())
        case Frequency.MONTHLY:
            return day.replace(day=1)
        case Frequency.QUARTERLY:
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)


def timetable(policy: Policy, calendar: Calendar) -> Timetable:
    """Return the periods that end within a calendar and whose due moments it knows.

    A due time that a clock skips means the moment at which it would have come without the change; of one that comes
    twice it means the first.
    """
    first_days, ends = [], []
    due_moment = _due_moment(policy, calendar)
    position = 0
    for first_day, days in groupby(calendar.days, lambda day: first_day_of(policy.frequency, day)):
        position += sum(1 for _ in days)
        due = position - 1 + policy.due_lag
        if due >= len(calendar.days) or _end_of(policy.frequency, first_day) > calendar.last:
            break
        first_days.append(first_day)
        ends.append(due_moment(due) + policy.grace)
    return Timetable(policy.grace, tuple(first_days), tuple(ends))


def _due_moment(policy: Policy, calendar: Calendar) -> Callable[[int], dt.datetime]:
    if not policy.due_time:
        return lambda position: calendar.ends[position]
    zone = ZoneInfo(policy.timezone or calendar.timezone)
    time = dt.time.fromisoformat(policy.due_time)
    return lambda position: dt.datetime.combine(calendar.days[position], time, zone).astimezone(dt.UTC)


def _end_of(frequency: Frequency, first_day: dt.date) -> dt.date:
    """Return the last day of the period that begins on a day."""
    longest = {Frequency.DAILY: 0, Frequency.WEEKLY: 6, Frequency.MONTHLY: 31, Frequency.QUARTERLY: 92}
    if frequency in {Frequency.DAILY, Frequency.WEEKLY}:
        return first_day + dt.timedelta(days=longest[frequency])
    beyond = first_day_of(frequency, first_day + dt.timedelta(days=longest[frequency]))
    return beyond - dt.timedelta(days=1)
