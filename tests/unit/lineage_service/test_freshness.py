"""Which date a freshness policy expects when, for every frequency, due time, lag, grace and change of the clocks."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from lineage_service.domain.calendars import Calendar, weekdays
from lineage_service.domain.freshness import Frequency, Judgement, Policy, is_late, timetable

UTC = dt.UTC
NEW_YORK = dt.timezone(dt.timedelta(hours=-5))
DAILY = Policy(Frequency.DAILY)


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=UTC)


def exchange(days: str, close: dt.time, zone: str = "America/New_York") -> Calendar:
    """A calendar of November 2026 alone, whose sessions are the days named, each closing at one time in UTC."""
    found = tuple(dt.date(2026, 11, int(day)) for day in days.split())
    ends = tuple(dt.datetime.combine(day, close, UTC) for day in found)
    return Calendar(zone, dt.date(2026, 11, 1), dt.date(2026, 11, 30), found, ends)


def judge(policy: Policy, now: str, last: str, calendar: Calendar | None = None) -> Judgement:
    table = timetable(policy, calendar or weekdays(2024, 2027))
    return table.judge(moment(now), last)


@pytest.mark.parametrize(
    ("policy", "now", "expected", "next_due"),
    [
        # Friday is over at midnight; on the weekend nothing falls due.
        (DAILY, "2026-11-27 23:59:59", "2026-11-26", "2026-11-28 00:00"),
        (DAILY, "2026-11-28 00:00", "2026-11-27", "2026-12-01 00:00"),
        (DAILY, "2026-11-30 12:00", "2026-11-27", "2026-12-01 00:00"),
        (replace(DAILY, grace=dt.timedelta(hours=9)), "2026-11-28 08:59", "2026-11-26", "2026-11-28 09:00"),
        (replace(DAILY, due_time="16:30"), "2026-11-27 16:30", "2026-11-27", "2026-11-30 16:30"),
        (
            replace(DAILY, due_time="16:30", timezone="America/New_York"),
            "2026-11-27 21:29",
            "2026-11-26",
            "2026-11-27 21:30",
        ),
        # One business day later: Thursday's data on Friday, Friday's on Monday.
        (replace(DAILY, due_lag=1, due_time="08:00"), "2026-11-27 08:00", "2026-11-26", "2026-11-30 08:00"),
        (Policy(Frequency.WEEKLY), "2026-11-27 23:00", "2026-11-16", "2026-11-28 00:00"),
        (Policy(Frequency.WEEKLY), "2026-11-28 00:00", "2026-11-23", "2026-12-05 00:00"),
        (Policy(Frequency.MONTHLY), "2026-11-28 00:00", "2026-10-01", "2026-12-01 00:00"),
        (Policy(Frequency.MONTHLY, due_lag=5), "2026-12-07 23:00", "2026-10-01", "2026-12-08 00:00"),
        (Policy(Frequency.QUARTERLY), "2026-11-28 00:00", "2026-07-01", "2027-01-01 00:00"),
    ],
)
def test_the_newest_period_whose_due_moment_and_grace_have_passed_is_expected(
    policy: Policy, now: str, expected: str, next_due: str
) -> None:
    found = judge(policy, now, expected)
    assert found == Judgement(expected, None, moment(next_due))
    # One day earlier is late; the first day of the period is not.
    before = (dt.date.fromisoformat(expected) - dt.timedelta(days=1)).isoformat()
    assert judge(policy, now, before).late_since_time is not None


def test_a_calendar_gives_the_sessions_their_closes_and_the_zone_of_a_due_time() -> None:
    # Thanksgiving is no session.
    calendar = exchange("23 24 25 27 30", dt.time(21))
    policy = Policy(Frequency.DAILY, "XNYS")
    assert judge(policy, "2026-11-27 20:59", "2026-11-25", calendar).late_since_time is None
    late = judge(policy, "2026-11-27 21:00", "2026-11-25", calendar)
    assert late == Judgement("2026-11-27", moment("2026-11-27 21:00"), moment("2026-11-30 21:00"))
    at_six = replace(policy, due_time="18:00")
    assert judge(at_six, "2026-11-27 22:59", "2026-11-25", calendar).expected_data_date == "2026-11-25"
    assert judge(at_six, "2026-11-27 23:00", "2026-11-25", calendar).expected_data_date == "2026-11-27"


def test_data_is_late_since_the_oldest_missing_period_was_due_without_its_grace() -> None:
    policy = replace(DAILY, grace=dt.timedelta(days=2), due_time="12:00")
    found = judge(policy, "2026-11-27 12:00", "2026-11-20")
    assert found.expected_data_date == "2026-11-25"
    assert found.late_since_time == moment("2026-11-23 12:00")


def test_data_without_a_date_is_never_late() -> None:
    assert judge(DAILY, "2026-11-28 00:00", "").late_since_time is None
    assert not is_late("", "2026-11-27")
    assert not is_late("2026-11-27", "")
    assert not is_late("2026-11-27T16:00:00", "2026-11-27")


def test_what_fell_due_before_a_policy_is_judged_is_not_expected() -> None:
    table = timetable(DAILY, weekdays(2024, 2027))
    since = moment("2026-11-28 06:00")
    assert table.judge(moment("2026-11-30 12:00"), "2020-01-02", since) == Judgement(
        next_due_time=moment("2026-12-01 00:00")
    )
    assert table.judge(moment("2026-12-01 00:00"), "2020-01-02", since).expected_data_date == "2026-11-30"


def test_a_due_time_that_the_clocks_skip_or_repeat_has_one_moment() -> None:
    policy = replace(DAILY, timezone="America/New_York", due_time="02:30")
    sunday = Calendar(
        "UTC",
        dt.date(2026, 1, 1),
        dt.date(2026, 12, 31),
        (dt.date(2026, 3, 8), dt.date(2026, 11, 1)),
        (moment("2026-03-09 00:00"), moment("2026-11-02 00:00")),
    )
    # The clocks skip from 02:00 to 03:00.
    assert timetable(policy, sunday).ends[0] == moment("2026-03-08 07:30")
    # 01:30 comes twice; the first counts.
    assert timetable(replace(policy, due_time="01:30"), sunday).ends[1] == moment("2026-11-01 05:30")


def test_a_period_that_goes_on_after_the_end_of_the_calendar_has_no_due_moment() -> None:
    calendar = weekdays(2026, 2026)
    # The last week goes on in January, for which nothing is known.
    assert timetable(Policy(Frequency.WEEKLY), calendar).first_days[-1] == dt.date(2026, 12, 21)
    assert timetable(Policy(Frequency.MONTHLY), calendar).first_days[-1] == dt.date(2026, 12, 1)
    assert timetable(Policy(Frequency.DAILY, due_lag=3), calendar).first_days[-1] == dt.date(2026, 12, 28)
    found = timetable(DAILY, calendar).judge(moment("2027-02-01 00:00"), "2026-12-31")
    assert found == Judgement("2026-12-31", None, None)


def test_a_week_without_a_session_is_never_due() -> None:
    calendar = exchange("2 3 16 17", dt.time(21))
    table = timetable(Policy(Frequency.WEEKLY, "XSHG"), calendar)
    assert table.first_days == (dt.date(2026, 11, 2), dt.date(2026, 11, 16))
