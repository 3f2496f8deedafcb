"""The rules of freshness on the real calendars of all exchanges, over ten years with their holidays and clock changes."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import random
from zoneinfo import ZoneInfo

import pytest
from exchange_calendars import get_calendar_names

from instance_service.domain.calendars import EXCHANGES
from lineage_service.calendars_adapter import ExchangeCalendars
from lineage_service.domain.calendars import Calendar
from lineage_service.domain.errors import CalendarError
from lineage_service.domain.freshness import Frequency, Policy, first_day_of, timetable
from lineage_service.exchange_sessions import sessions

_FIRST, _LAST = 2018, 2027
_ALL = sorted(EXCHANGES)
_IS_FULL = os.environ.get("OPTAIC_FAULTS") == "full"
# Every frequency, and at random the rest.
_POLICIES = 40 if _IS_FULL else 6
_NAMES = _ALL if _IS_FULL else ["XNYS", "XTAE", "XHKG", "XSHG"]


def test_instance_service_knows_exactly_the_exchanges_of_the_package() -> None:
    others = {"24/5", "24/7", "us_futures"}  # calendars that are no exchanges
    assert set(get_calendar_names(include_aliases=False)) - others == EXCHANGES


@pytest.mark.parametrize("name", _NAMES)
def test_every_policy_expects_on_every_calendar_what_a_slow_search_finds(name: str) -> None:
    found = sessions(name, _FIRST, _LAST)
    calendar = _calendar(found)
    generator = random.Random(name)
    for number in range(_POLICIES):
        policy = Policy(
            list(Frequency)[number % len(Frequency)],
            name,
            dt.timedelta(hours=generator.choice([0, 0, 1, 30, 24 * 40])),
            generator.choice(["", "00:00", "01:30", "02:30", "16:30"]),
            "",
            generator.choice([0, 0, 1, 5, 60]),
        )
        _check(policy, calendar, generator)


def _check(policy: Policy, calendar: Calendar, generator: random.Random) -> None:
    table = timetable(policy, calendar)
    assert all(before < after for before, after in itertools.pairwise(table.first_days))
    assert all(before < after for before, after in itertools.pairwise(table.ends))
    slow = _slow(policy, calendar)
    assert dict(zip(table.first_days, table.ends, strict=True)) == slow
    for moment in generator.sample(table.ends, 20):
        for now in (moment - dt.timedelta(microseconds=1), moment, moment + dt.timedelta(hours=7)):
            expected = max((first for first, end in slow.items() if end <= now), default=None)
            last = now.date() - dt.timedelta(days=generator.randrange(200))
            judgement = table.judge(now, last.isoformat())
            assert judgement.expected_data_date == (expected.isoformat() if expected else "")
            assert judgement.next_due_time == min((end for end in slow.values() if end > now), default=None)
            missing = [end for first, end in slow.items() if last < first and end <= now]
            since = min(missing) - policy.grace if missing else None
            assert judgement.late_since_time == since


def _slow(policy: Policy, calendar: Calendar) -> dict[dt.date, dt.datetime]:
    """Return the end of the grace of each period, straight from the words of the contract."""
    periods: dict[dt.date, list[int]] = {}
    for position, day in enumerate(calendar.days):
        periods.setdefault(first_day_of(policy.frequency, day), []).append(position)
    found = {}
    for first_day, positions in periods.items():
        following = first_day
        while first_day_of(policy.frequency, following) == first_day:
            following += dt.timedelta(days=1)
        due = positions[-1] + policy.due_lag
        if due >= len(calendar.days) or following - dt.timedelta(days=1) > calendar.last:
            continue
        moment = calendar.ends[due]
        if policy.due_time:
            hour, minute = map(int, policy.due_time.split(":"))
            day, zone = calendar.days[due], ZoneInfo(calendar.timezone)
            moment = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).astimezone(dt.UTC)
        found[first_day] = moment + policy.grace
    return found


def _calendar(found: dict[str, object]) -> Calendar:
    days, ends = found["days"], found["ends"]
    assert isinstance(days, list)
    assert isinstance(ends, list)
    return Calendar(
        str(found["timezone"]),
        dt.date.fromisoformat(str(found["first"])),
        dt.date.fromisoformat(str(found["last"])),
        tuple(map(dt.date.fromisoformat, days)),
        tuple(dt.datetime.fromtimestamp(end, dt.UTC) for end in ends),
    )


async def test_a_process_of_its_own_reads_a_calendar_once() -> None:
    calendars = ExchangeCalendars()
    found = await calendars.get("XNYS", 2024, 2027)
    # Thanksgiving is no session, and the exchange closes early on the day after.
    position = found.days.index(dt.date(2026, 11, 27))
    assert found.days[position - 1] == dt.date(2026, 11, 25)
    assert found.ends[position] == dt.datetime(2026, 11, 27, 18, tzinfo=dt.UTC)
    assert found.timezone == "America/New_York"
    assert await calendars.get("XNYS", 2025, 2026) is found
    wider = await calendars.get("XNYS", 2023, 2026)
    assert (wider.first.year, wider.last.year) == (2023, 2027)
    with pytest.raises(CalendarError, match="NO_SUCH"):
        await calendars.get("NO_SUCH", 2024, 2027)
