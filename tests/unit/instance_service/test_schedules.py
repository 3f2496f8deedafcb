"""Cron expressions, time zones, windows, and semantic versions."""

import itertools

import pytest

from instance_service.domain.schedules import (
    CronError,
    check_cron,
    interval_crons,
    interval_problem,
    is_timezone,
)
from instance_service.domain.versions import precedence
from instance_service.use_cases.schedules import timings_of
from optaic.instance.v1.schedule_pb2 import CronSchedule, IntervalSchedule, ManualSchedule, Schedule


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",
        "30 16 * * 1-5",
        "*/15 9-17 * * mon-FRI",
        "0 0 1,15 jan,jul *",
        "5/10 * * * 7",
        "0 0 29 2 *",
    ],
)
def test_good_expressions_pass(expression: str) -> None:
    check_cron(expression)


@pytest.mark.parametrize(
    ("expression", "word"),
    [
        ("* * * *", "fields"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day of week"),
        ("*/0 * * * *", "step"),
        ("5-1 * * * *", "backwards"),
        ("a * * * *", "minute"),
        (", * * * *", "minute"),
        ("1- * * * *", "minute"),
        ("²  * * * *", "minute"),
        ("0 0 31 4,6 *", "no month"),
        ("0 0 30 feb *", "no month"),
    ],
)
def test_bad_expressions_are_refused_by_field(expression: str, word: str) -> None:
    with pytest.raises(CronError, match=word):
        check_cron(expression)


def test_time_zones_are_iana_names() -> None:
    assert all(is_timezone(name) for name in ("", "UTC", "America/New_York"))
    assert not any(is_timezone(name) for name in ("Mars/Base", "../etc/passwd", "/etc/passwd", "America"))


def test_windows_need_both_ends_in_order() -> None:
    assert not interval_problem(5, "", "", business_days_only=False)
    assert not interval_problem(5, "09:30", "16:00", business_days_only=True)
    assert "both" in interval_problem(5, "09:30", "", business_days_only=False)
    assert "before" in interval_problem(5, "16:00", "16:00", business_days_only=False)
    assert "shorter" in interval_problem(1440, "", "", business_days_only=True)


def _ticks(crons: list[str]) -> list[int]:
    times = []
    for cron in crons:
        minutes, hours = (map(int, part.split(",")) for part in cron.split()[:2])
        times += [60 * hour + minute for hour, minute in itertools.product(list(hours), list(minutes))]
    return sorted(times)


@pytest.mark.parametrize("minutes", [1, 7, 15, 45, 90, 1439])
def test_a_window_ticks_exactly_from_its_start_to_its_end(minutes: int) -> None:
    crons = interval_crons(minutes, "09:30", "16:05", business_days_only=True)
    assert _ticks(crons) == list(range(570, 966, minutes))
    for cron in crons:
        check_cron(cron)
        assert cron.endswith("* * 1-5")


def test_a_schedule_becomes_timings() -> None:
    assert timings_of(Schedule()) == timings_of(Schedule(manual=ManualSchedule())) == ()
    (cron,) = timings_of(Schedule(cron=CronSchedule(expression="0 9 * * *"), enabled=False))
    assert (cron.cron, cron.timezone, cron.is_active) == ("0 9 * * *", "UTC", False)
    (interval,) = timings_of(Schedule(interval=IntervalSchedule(minutes=15)))
    assert (interval.interval_seconds, interval.is_active) == (900, True)
    window = IntervalSchedule(minutes=30, window_start="09:30", window_end="16:00", timezone="Europe/Paris")
    timings = timings_of(Schedule(interval=window))
    assert timings == tuple(sorted(timings, key=lambda timing: timing.slug))
    assert {timing.timezone for timing in timings} == {"Europe/Paris"}


def test_precedence_is_that_of_semver() -> None:
    ordered = [
        "0.9.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
        "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.2.0", "1.10.0", "2.0.0", "10.0.0",
    ]  # fmt: skip
    assert sorted(ordered, key=lambda version: precedence(version).encode()) == ordered
    assert precedence("1.0.0+a") == precedence("1.0.0+b")
