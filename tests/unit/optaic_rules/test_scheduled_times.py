"""The scheduled times of a schedule within a span; tests over all zones compare them with what Prefect plans."""

from __future__ import annotations

import datetime as dt

import pytest

from optaic.instance.v1.schedule_pb2 import Schedule
from optaic.rules.scheduled_times import has_tick, times_between

_MINUTE = dt.timedelta(minutes=1)


def _cron(expression: str, timezone: str = "") -> Schedule:
    schedule = Schedule()
    schedule.cron.expression, schedule.cron.timezone = expression, timezone
    return schedule


def _at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text + "Z")


def test_the_first_end_of_a_span_does_not_belong_to_it_and_the_last_does() -> None:
    schedule = _cron("*/10 * * * *")
    span = _at("2024-01-02T16:00:00"), _at("2024-01-02T16:20:00")
    assert times_between(schedule, *span) == [_at("2024-01-02T16:10:00"), _at("2024-01-02T16:20:00")]
    assert times_between(schedule, span[0] - dt.timedelta(seconds=0.5), span[0]) == [span[0]]
    assert times_between(schedule, span[1], span[0]) == []


def test_an_interval_without_a_window_counts_from_the_anchor_that_prefect_gets() -> None:
    schedule = Schedule()
    schedule.interval.minutes = 7
    start = _at("2020-01-01T00:00:00")
    times = times_between(schedule, start - _MINUTE, start + 21 * _MINUTE)
    assert times == [start, start + 7 * _MINUTE, start + 14 * _MINUTE, start + 21 * _MINUTE]


def test_a_schedule_that_is_manual_or_paused_has_no_times() -> None:
    manual, paused = Schedule(), _cron("* * * * *")
    manual.manual.SetInParent()
    paused.enabled = False
    for schedule in (manual, paused):
        assert times_between(schedule, _at("2024-01-02T16:00:00"), _at("2024-01-02T17:00:00")) == []


@pytest.mark.parametrize(
    ("day", "expression", "expected"),
    [
        ("2024-03-10", "30 2 * * *", ["2024-03-10T06:30:00"]),  # skipped: on the new clock
        ("2024-11-03", "30 1 * * *", ["2024-11-03T05:30:00"]),  # comes twice: the first time
        ("2024-07-01", "30 2 * * *", ["2024-07-01T06:30:00"]),
    ],
)
def test_each_time_happens_once_when_clocks_change(day: str, expression: str, expected: list[str]) -> None:
    start = _at(f"{day}T04:00:00")
    times = times_between(_cron(expression, "America/New_York"), start, start + dt.timedelta(hours=20))
    assert times == [_at(text) for text in expected]
    assert all(has_tick(_cron(expression, "America/New_York"), time) for time in times)
