"""The timings of a schedule, and whether a time is one of its scheduled times."""

from __future__ import annotations

import datetime as dt
import zoneinfo

from optaic.instance.v1.schedule_pb2 import Schedule
from optaic.rules.schedules import Timing, cron_parts, interval_crons, matches

_NEAR = [dt.timedelta(hours=hours) for hours in (-3, 0, 3)]  # a clock is set by less
_MINUTE = dt.timedelta(minutes=1)
_ANCHOR = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)  # from which an interval without a window counts


def timings_of(schedule: Schedule) -> tuple[Timing, ...]:
    """Return the timings of a valid schedule, sorted; a manual schedule has none."""
    is_active = schedule.enabled if schedule.HasField("enabled") else True
    timing = schedule.WhichOneof("timing")
    if timing == "cron":
        cron = schedule.cron
        return tuple(
            Timing(
                "-".join(["cron", "late"][: 1 + index]),
                cron.timezone or "UTC",
                cron=part,
                is_active=is_active,
            )
            for index, part in enumerate(cron_parts(cron.expression))
        )
    if timing != "interval":
        return ()
    interval = schedule.interval
    timezone = interval.timezone or "UTC"
    if not (interval.window_start or interval.business_days_only):
        seconds = interval.minutes * 60
        return (Timing("interval", timezone, interval_seconds=seconds, is_active=is_active),)
    crons = interval_crons(
        interval.minutes,
        interval.window_start,
        interval.window_end,
        business_days_only=interval.business_days_only,
    )
    return tuple(
        Timing(f"window-{index:02d}", timezone, cron=cron, is_active=is_active)
        for index, cron in enumerate(crons)
    )


def has_tick(schedule: Schedule, time: dt.datetime) -> bool:
    """Return whether a valid schedule that is active has a scheduled time, to the second.

    Prefect chooses the first time of an interval without a window, so each whole second may be one of its times.
    """
    if time.microsecond:
        return False
    timings = [timing for timing in timings_of(schedule) if timing.is_active]
    return any(timing.interval_seconds or _is_time(timing, time) for timing in timings)


def times_between(schedule: Schedule, after: dt.datetime, until: dt.datetime) -> list[dt.datetime]:
    """Return the scheduled times of a valid schedule after one time, up to another and including it; none if it is paused."""
    times = set[dt.datetime]()
    for timing in timings_of(schedule):
        if not timing.is_active:
            continue
        step = dt.timedelta(seconds=timing.interval_seconds) or _MINUTE
        time = _ANCHOR + ((after - _ANCHOR) // step + 1) * step
        while time <= until:
            if timing.interval_seconds or _comes_at(timing, time):
                times.add(time)
            time += step
    return sorted(times)


def _comes_at(timing: Timing, time: dt.datetime) -> bool:
    """Return whether an expression has a scheduled time at exactly this whole minute, when clocks change too."""
    zone = zoneinfo.ZoneInfo(timing.timezone)
    return any(matches(timing.cron, clock) and _instant(clock, zone) == time for clock in _clocks(zone, time))


def _instant(clock: dt.datetime, zone: zoneinfo.ZoneInfo) -> dt.datetime:
    """Return when the clock of a zone shows a time: the first time if it comes twice, on the new clock if it is skipped."""
    first, second = (clock.replace(tzinfo=zone, fold=fold).astimezone(dt.UTC) for fold in (0, 1))
    return min(first, second)


def _is_time(timing: Timing, time: dt.datetime) -> bool:
    """Return whether an expression matches a time on the clocks of its zone, before or after they are set."""
    clocks = _clocks(zoneinfo.ZoneInfo(timing.timezone), time)
    return not time.second and any(matches(timing.cron, clock) for clock in clocks)


def _clocks(zone: zoneinfo.ZoneInfo, time: dt.datetime) -> list[dt.datetime]:
    """Return what the clock of a zone shows at a time, and what it would show if it were set a little earlier or later."""
    offsets = {(time + near).astimezone(zone).utcoffset() for near in _NEAR}
    return [(time + offset).replace(tzinfo=None) for offset in offsets if offset is not None]
