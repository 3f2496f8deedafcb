"""The timings of a schedule, and whether a time is one of its scheduled times."""

from __future__ import annotations

import datetime as dt
import zoneinfo

from optaic.instance.v1.schedule_pb2 import Schedule
from optaic.rules.schedules import Timing, cron_parts, interval_crons, matches

_NEAR = [dt.timedelta(hours=hours) for hours in (-3, 0, 3)]  # a clock is set by less


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


def _is_time(timing: Timing, time: dt.datetime) -> bool:
    """Return whether an expression matches a time on the clocks of its zone, before or after they are set."""
    zone = zoneinfo.ZoneInfo(timing.timezone)
    offsets = {(time + near).astimezone(zone).utcoffset() for near in _NEAR}
    clocks = [time.astimezone(dt.timezone(offset)) for offset in offsets if offset is not None]
    return not time.second and any(matches(timing.cron, clock) for clock in clocks)
