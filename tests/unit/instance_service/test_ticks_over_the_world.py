"""The rule of docs/schedules.md, reckoned from first principles, is what Prefect plans for our schedules, in every zone."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import random
import zoneinfo
from collections.abc import Iterator

import pytest
from prefect.server.schemas.schedules import CronSchedule

from optaic.instance.v1.schedule_pb2 import Schedule
from optaic.rules.scheduled_times import times_between, timings_of
from optaic.rules.schedules import is_timezone

_FIRST, _YEARS = 2015, 20
_IS_FULL = os.environ.get("OPTAIC_FAULTS") == "full"
_ZONES = sorted(name for name in zoneinfo.available_timezones() if is_timezone(name))
_DAYS = 3
_MINUTE = dt.timedelta(minutes=1)


def _changes(zone: zoneinfo.ZoneInfo) -> list[dt.datetime]:
    """Every instant at which the zone's clock jumps, to the minute."""

    def offset(moment: dt.datetime) -> dt.timedelta | None:
        return moment.astimezone(zone).utcoffset()

    found = []
    low = dt.datetime(_FIRST, 1, 1, tzinfo=dt.UTC)
    while low.year < _FIRST + _YEARS:
        high = low + dt.timedelta(days=7)
        if offset(low) != offset(high):
            left, right = low, high
            while right - left > dt.timedelta(minutes=1):
                middle = left + (right - left) / 2
                left, right = (middle, right) if offset(middle) == offset(left) else (left, middle)
            found.append(right)
        low = high
    return found


def _instant(wall: dt.datetime, zone: zoneinfo.ZoneInfo) -> dt.datetime:
    """The rule: the first time if it comes twice, on the new clock if it is skipped."""
    instant = wall.replace(tzinfo=zone).astimezone(dt.UTC)
    is_skipped = instant.astimezone(zone).replace(tzinfo=None) != wall
    return wall.replace(tzinfo=zone, fold=1).astimezone(dt.UTC) if is_skipped else instant


def _expected(
    day: dt.date, zone: zoneinfo.ZoneInfo, minutes: Iterator[int] | range, *, business: bool
) -> set[dt.datetime]:
    days = [day + dt.timedelta(days=count) for count in range(-1, _DAYS + 2)]
    midnights = [dt.datetime.combine(each, dt.time()) for each in days if not business or each.weekday() < 5]
    chosen = list(minutes)
    return {
        _instant(midnight + dt.timedelta(minutes=minute), zone) for midnight in midnights for minute in chosen
    }


async def _planned(schedule: Schedule, start: dt.datetime, end: dt.datetime) -> set[dt.datetime]:
    planned: set[dt.datetime] = set()
    for timing in timings_of(schedule):
        clock = CronSchedule(cron=timing.cron, timezone=timing.timezone)
        dates = await clock.get_dates(n=1000, start=start, end=end)
        assert all(one < other for one, other in itertools.pairwise(dates)), "a tick came twice"
        planned.update(date.astimezone(dt.UTC) for date in dates)
    return planned


def _cases(rng: random.Random) -> Iterator[tuple[str, dt.datetime]]:
    for name in _ZONES if _IS_FULL else rng.sample(_ZONES, 120):
        changes = _changes(zoneinfo.ZoneInfo(name))
        any_day = dt.datetime(_FIRST, 1, 1, 12, tzinfo=dt.UTC) + dt.timedelta(
            days=rng.randrange(365 * _YEARS)
        )
        chosen = [*changes, any_day] if _IS_FULL else rng.sample([*changes, any_day], 1)
        yield from ((name, change) for change in chosen)


@pytest.mark.faults
async def test_scheduled_times_are_right_in_every_zone_over_twenty_years() -> None:
    rng = random.Random(20)
    for name, change in _cases(rng):
        zone = zoneinfo.ZoneInfo(name)
        local = change.astimezone(zone)
        day = local.date() - dt.timedelta(days=1)
        start = dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)
        end = start + dt.timedelta(days=_DAYS)
        around = (local.hour * 60 + local.minute + rng.randrange(-90, 90)) % (24 * 60)
        schedule = Schedule()
        schedule.cron.expression = f"{around % 60} {around // 60} * * *"
        schedule.cron.timezone = name
        minutes, business = range(around, around + 1), False
        if rng.random() < 0.7:
            begin, stop = sorted(rng.sample(range(24 * 60), 2))
            step, business = rng.choice([7, 15, 30, 45, 60, 90]), rng.random() < 0.5
            schedule.interval.minutes = step
            schedule.interval.window_start = f"{begin // 60:02d}:{begin % 60:02d}"
            schedule.interval.window_end = f"{stop // 60:02d}:{stop % 60:02d}"
            schedule.interval.business_days_only = business
            schedule.interval.timezone = name
            minutes = range(begin, stop + 1, step)
        expected = {
            moment for moment in _expected(day, zone, minutes, business=business) if start <= moment <= end
        }
        planned = {moment for moment in await _planned(schedule, start, end) if moment <= end}
        assert planned == expected, (name, schedule, sorted(planned ^ expected))
        assert times_between(schedule, start - _MINUTE, end) == sorted(expected), (name, schedule)


def test_all_zones_and_their_clock_changes_are_covered() -> None:
    assert len(_ZONES) > 500
    assert not any(
        is_timezone(name) for name in ("Factory", "localtime", "right/UTC", "Mars/Olympus", "utc ")
    )
    assert len(_changes(zoneinfo.ZoneInfo("America/New_York"))) == 2 * _YEARS
    assert not _changes(zoneinfo.ZoneInfo("Asia/Kolkata"))
