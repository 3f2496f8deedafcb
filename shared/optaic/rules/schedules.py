"""The checks of cron expressions, time zones and windows, and their conversion to the cron expressions that Prefect takes."""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo
from collections import defaultdict
from dataclasses import dataclass

_DAY = 24 * 60
_MONTHS = {
    name: n
    for n, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], start=1
    )
}
_WEEKDAYS = {name: n for n, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _WEEKDAYS),
)
_SATURDAY = 6
_SHORTEST_MONTH = 28
_LONGEST_MONTHS = dict(enumerate((31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), start=1))


@dataclass(frozen=True)
class Timing:
    """One schedule of a deployment: a cron expression, or an interval without a window."""

    slug: str
    timezone: str
    cron: str = ""
    interval_seconds: int = 0
    is_active: bool = True


class CronError(ValueError):
    """A text is no valid cron expression; the message names the field and the reason."""


@dataclass(frozen=True)
class _Days:
    """The days that a cron expression matches, as Prefect reads it."""

    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    is_any_day: bool
    is_any_weekday: bool

    def has(self, day: dt.date) -> bool:
        """Return whether a day matches: if day of month and day of week are both restricted, one match is enough."""
        if day.month not in self.months:
            return False
        is_day, is_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.is_any_day or self.is_any_weekday:
            return (is_day or self.is_any_day) and (is_weekday or self.is_any_weekday)
        return is_day or is_weekday


def check_cron(expression: str) -> None:
    """Check a five-field cron expression: numbers, names, ranges, lists, steps.

    A valid expression matches at least once in any ten years in every time zone: a time that the change to summer time
    skips still counts.

    Raises:
        CronError: The expression is invalid, or Prefect would never start a run for it.
    """
    days = _days(expression)
    if not days.is_any_day and all(min(days.days) > _LONGEST_MONTHS[month] for month in days.months):
        text = f"{expression!r} never comes: none of its months has such a day; change the day of month or the month"
        if not days.is_any_weekday:
            # Prefect evaluates day of month and weekday separately, and stops at the one that never matches.
            text += "; Prefect then ignores the day of week: to run on weekdays, write * for the day of month"
        raise CronError(text)


def cron_parts(expression: str) -> list[str]:
    """Return the expressions that together make Prefect do what a valid expression says.

    If an expression names a day after the 28th and one of the first three days, Prefect skips the early day in March.
    So the early and the late days get an expression each.
    """
    days = _days(expression)
    late = {day for day in days.days if day > _SHORTEST_MONTH}
    if days.is_any_day or not late or min(days.days) > max(_LONGEST_MONTHS.values()) - _SHORTEST_MONTH:
        return [expression]
    minute, hour, _, month, weekday = expression.split()
    # The days of the week stand only in the expression of the early days.
    weekday = "*" if days.is_any_weekday else weekday
    early = f"{minute} {hour} {_join(sorted(days.days - late))} {month} {weekday}"
    rest = f"{minute} {hour} {_join(sorted(late))} {month} *"
    return [early, rest] if is_possible(rest) else [early]


def comes_within(expression: str, first: dt.date, count: int) -> bool:
    """Return whether an expression matches one of the `count` days from `first`; an invalid one never does."""
    try:
        days = _days(expression)
    except CronError:
        return False
    return any(days.has(first + dt.timedelta(days=number)) for number in range(count))


def matches(expression: str, moment: dt.datetime) -> bool:
    """Return whether a valid expression matches a minute of the clock, as Prefect reads it."""
    minutes, hours = _times_of_day(expression)
    return moment.minute in minutes and moment.hour in hours and _days(expression).has(moment.date())


@functools.lru_cache(maxsize=1024)  # a schedule is asked about many minutes
def _times_of_day(expression: str) -> tuple[frozenset[int], frozenset[int]]:
    """Return the minutes and the hours of a valid expression."""
    minutes, hours = (
        frozenset(_cron_values(part, *field))
        for part, field in zip(expression.split()[:2], _FIELDS[:2], strict=True)
    )
    return minutes, hours


def is_possible(expression: str) -> bool:
    """Return whether an expression is valid and matches at least one day."""
    try:
        check_cron(expression)
    except CronError:
        return False
    return True


@functools.lru_cache(maxsize=1024)
def _days(expression: str) -> _Days:
    parts = expression.split()
    if len(parts) != len(_FIELDS):
        raise CronError(
            f"a cron expression has {len(_FIELDS)} fields, but {expression[:100]!r} has {len(parts)}"
        )
    try:
        _, _, days, months, weekdays = (
            _cron_values(part, *field) for part, field in zip(parts, _FIELDS, strict=True)
        )
    except CronError as error:
        raise CronError(f"{expression!r}: {error}") from None
    _, _, day, _, weekday = parts
    every_day, every_weekday = len(days) == _LONGEST_MONTHS[1], len({one % 7 for one in weekdays}) == 7  # noqa: PLR2004 - a week
    return _Days(
        frozenset(days),
        frozenset(months),
        frozenset(one % 7 for one in weekdays),
        # As Prefect reads them: if one field is a star, listing all days in the other equals a star.
        "*" in day.split(",") or (every_day and "*" in weekday),
        "*" in weekday.split(",") or (every_weekday and "*" in day),
    )


def _cron_values(text: str, name: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    values: set[int] = set()
    for item in text.split(","):
        span, has_step, step = item.partition("/")
        if has_step and (not step.isdecimal() or not 1 <= int(step) <= high):
            raise CronError(f"{name}: {step!r} is not a step; write a whole number from 1 to {high}")
        first, has_range, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = _cron_number(first, name, low, high, names)
            # A step after a single number counts up to the end of the field; for weekdays that is Saturday.
            last_of_all = _SATURDAY if names is _WEEKDAYS else high
            end = (
                _cron_number(last, name, low, high, names)
                if has_range
                else last_of_all
                if has_step
                else begin
            )
        if begin > end:
            raise CronError(f"{name}: {span!r} runs backwards; write the smaller value first")
        if begin == end and (has_range or has_step):
            raise CronError(
                f"{name}: Prefect reads {item!r} as every value of the field; write {first!r} alone"
            )
        values.update(range(begin, end + 1, int(step) if has_step else 1))
    return values


def _cron_number(text: str, name: str, low: int, high: int, names: dict[str, int]) -> int:
    number = names.get(text.lower(), int(text) if text.isdecimal() and len(text) <= 2 else -1)  # noqa: PLR2004 - two digits
    if not low <= number <= high:
        raise CronError(f"{name}: {text!r} is not between {low} and {high}")
    return number


def is_timezone(name: str) -> bool:
    """Return whether a name is an IANA time zone; the empty name means UTC."""
    return not name or name in _timezones()


@functools.cache
def _timezones() -> frozenset[str]:
    """Return the time zones of this machine's database that have the same meaning on every machine."""
    return frozenset(zoneinfo.available_timezones() - {"Factory", "localtime"})


def interval_problem(minutes: int, window_start: str, window_end: str, *, business_days_only: bool) -> str:
    """Return the error in an interval, or an empty text."""
    if bool(window_start) != bool(window_end):
        return "a window needs both its start and its end"
    if window_start and window_start >= window_end:
        return "the window must start before it ends"
    if (window_start or business_days_only) and minutes >= _DAY:
        return "an interval within a window or on business days must be shorter than a day"
    return ""


def interval_crons(
    minutes: int, window_start: str, window_end: str, *, business_days_only: bool
) -> list[str]:
    """Return cron expressions that together match every `minutes` from the window's start to its end, each day."""
    begin, end = _minute_of_day(window_start or "00:00"), _minute_of_day(window_end or "23:59")
    minutes_by_hour: dict[int, list[int]] = defaultdict(list)
    for tick in range(begin, end + 1, minutes):
        minutes_by_hour[tick // 60].append(tick % 60)
    hours_by_minutes: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for hour, ticks in minutes_by_hour.items():
        hours_by_minutes[tuple(ticks)].append(hour)
    days = "1-5" if business_days_only else "*"
    return [f"{_join(ticks)} {_join(hours)} * * {days}" for ticks, hours in hours_by_minutes.items()]


def _minute_of_day(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def _join(numbers: list[int] | tuple[int, ...]) -> str:
    return ",".join(str(number) for number in numbers)
