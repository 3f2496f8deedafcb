"""The business days of a calendar, each with the moment at which it ends; pure, and without the library of exchanges."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

WEEKDAYS = ""  # the name of the calendar of a policy that names none
_SATURDAY = 5


@dataclass(frozen=True)
class Calendar:
    """All business days from `first` to `last`, in order, and the end of each.

    Days after `last` are not known, so a period that may go on after it has no due moment.
    """

    timezone: str
    first: dt.date
    last: dt.date
    days: tuple[dt.date, ...]
    ends: tuple[dt.datetime, ...]  # of the days: the close of the exchange


def weekdays(first_year: int, last_year: int) -> Calendar:
    """Return the calendar of Mondays to Fridays; each ends at midnight in UTC."""
    first, last = dt.date(first_year, 1, 1), dt.date(last_year, 12, 31)
    every = (first + dt.timedelta(days=each) for each in range((last - first).days + 1))
    days = tuple(day for day in every if day.weekday() < _SATURDAY)
    ends = tuple(dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC) + dt.timedelta(days=1) for day in days)
    return Calendar("UTC", first, last, days, ends)
