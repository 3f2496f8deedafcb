"""Cron expressions, time zones, windows, and semantic versions."""

import datetime as dt
import itertools
import random
from typing import Any

import pytest
from prefect._vendor.croniter.croniter import CroniterBadDateError, croniter

from instance_service.domain.versions import precedence
from instance_service.resources.instances.schedules import schedule_violations
from optaic.instance.v1.schedule_pb2 import CronSchedule, IntervalSchedule, ManualSchedule, Schedule
from optaic.rules.scheduled_times import timings_of
from optaic.rules.schedules import (
    CronError,
    check_cron,
    comes_within,
    cron_parts,
    interval_crons,
    interval_problem,
    is_timezone,
)

_clock: Any = croniter  # it has no types


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
        ("0 0 31 4,6 *", "none of its months"),
        ("0 0 30 feb *", "none of its months"),
        ("0 0 30 2 *", "'0 0 30 2 \\*' never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("0 0 31 2 1", "write \\* for the day of month"),
        ("48 14 31 jun sun", "ignores the day of week"),
        ("0 0 30-31 2 mon-fri", "never comes"),
        ("0 9 3-3 * *", "as every value"),
        ("59/5 * * * *", "write '59' alone"),
        ("0 9 * * 7/2", "backwards"),
    ],
)
def test_bad_expressions_are_refused_by_field(expression: str, word: str) -> None:
    with pytest.raises(CronError, match=word):
        check_cron(expression)


@pytest.mark.parametrize("begin", ["2026-11-27 12:30", "2096-03-01", "2028-02-29"])
def test_an_accepted_cron_expression_means_the_same_to_prefect_and_matches_within_ten_years(
    begin: str,
) -> None:
    start = dt.datetime.fromisoformat(begin)
    rng = random.Random(begin)
    taken = refused = 0
    for _ in range(400):
        days, months, weekdays = _field(rng, 1, 31), _field(rng, 1, 12), _field(rng, 0, 7)
        expression = f"30 12 {days} {months} {weekdays}"
        try:
            check_cron(expression)
        except CronError as error:
            refused += 1
            if "never comes" in str(error):
                with pytest.raises(CroniterBadDateError):
                    _clock(expression, start).get_next(dt.datetime)
            continue
        taken += 1
        planned: set[dt.datetime] = set()
        for part in cron_parts(expression):
            clock = _clock(part, start)
            planned.update(clock.get_next(dt.datetime) for _ in range(8))
        upcoming = sorted(planned)[:8]
        assert upcoming[0] - start <= dt.timedelta(days=3653), expression
        # Day by day, as the expression says it.
        named = [start.date() + dt.timedelta(days=n) for n in range((upcoming[-1] - start).days + 2)]
        said = [
            moment
            for day in named
            if comes_within(expression, day, 1)
            and (moment := dt.datetime.combine(day, dt.time(12, 30))) > start
        ]
        assert said[:8] == upcoming, expression
    assert taken > 200
    assert refused > 20


def _field(rng: random.Random, low: int, high: int) -> str:
    if rng.random() < 0.3:
        return "*"
    items = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        first, last = sorted((rng.randint(low, high), rng.randint(low, high)))
        step = rng.randint(1, high)
        texts = [f"{first}", f"*/{step}", f"{first}-{last}", f"{first}-{last}/{step}", f"{first}/{step}", "*"]
        items.append(rng.choices(texts, [40, 15, 15, 10, 10, 10])[0])
    return ",".join(items)


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("0 9 * * 1", ["0 9 * * 1"]),
        ("0 0 31 * *", ["0 0 31 * *"]),
        ("0 0 1,31 * *", ["0 0 1 * *", "0 0 31 * *"]),
        ("0 0 1,30 2 1", ["0 0 1 2 1"]),
        ("0 0 */10 * 1", ["0 0 1,11,21 * 1", "0 0 31 * *"]),
    ],
)
def test_days_at_both_ends_of_a_month_are_distinguished(expression: str, parts: list[str]) -> None:
    assert cron_parts(expression) == parts
    timings = timings_of(Schedule(cron=CronSchedule(expression=expression)))
    assert [timing.cron for timing in timings] == parts
    assert [timing.slug for timing in timings] == ["cron", "cron-late"][: len(parts)]


def test_a_refused_expression_is_named_with_its_field() -> None:
    schedule = Schedule(cron=CronSchedule(expression="0 0 31 2 1", timezone="Asia/Tokyo"))
    (violation,) = schedule_violations(schedule)
    assert (violation.field, violation.reason) == ("instance.schedule.cron.expression", "INVALID_SCHEDULE")
    assert "'0 0 31 2 1' never comes" in violation.description


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
def test_a_window_has_scheduled_times_exactly_from_its_start_to_its_end(minutes: int) -> None:
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
