"""Read the trading days of exchanges from the package exchange_calendars, in a process of its own.

The package needs pandas and computes for seconds: too long for a service whose event loop answers everybody. The process
ends when it has answered; the service keeps the answer.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import subprocess
import sys

from lineage_service.domain.calendars import WEEKDAYS, Calendar, weekdays
from lineage_service.domain.errors import CalendarError

_SECONDS = 120.0


class ExchangeCalendars:
    """The calendars that were asked for, each read once for the years that were needed so far."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, Calendar]] = {}  # with the years that were asked for
        self._lock = asyncio.Lock()

    async def get(self, name: str, first_year: int, last_year: int) -> Calendar:
        """Return a calendar of these years, or of the part of them that is known; see `ports.Calendars`."""
        async with self._lock:
            known = self._known.get(name)
            if known is not None:
                first, last, calendar = known
                if first <= first_year and last_year <= last:
                    return calendar
                first_year, last_year = min(first, first_year), max(last, last_year)
            calendar = (
                weekdays(first_year, last_year)
                if name == WEEKDAYS
                else await _read(name, first_year, last_year)
            )
            self._known[name] = (first_year, last_year, calendar)
            return calendar


async def _read(name: str, first_year: int, last_year: int) -> Calendar:
    return await asyncio.to_thread(_ask, name, first_year, last_year)


def _ask(name: str, first_year: int, last_year: int) -> Calendar:
    """Start the process and wait for it; not over the event loop, whose way to start one is not made for gRPC's threads."""
    command = [
        sys.executable,
        "-m",
        "lineage_service.exchange_sessions",
        name,
        str(first_year),
        str(last_year),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - of this program, with the name of a known calendar
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise CalendarError(name, f"no answer within {_SECONDS:.0f} s") from None
    if done.returncode:
        raise CalendarError(name, done.stderr.decode(errors="replace").strip()[-500:])
    return _calendar(json.loads(done.stdout))


def _calendar(found: dict[str, str | list[str] | list[float]]) -> Calendar:
    return Calendar(
        str(found["timezone"]),
        dt.date.fromisoformat(str(found["first"])),
        dt.date.fromisoformat(str(found["last"])),
        tuple(dt.date.fromisoformat(str(day)) for day in found["days"]),
        tuple(dt.datetime.fromtimestamp(float(end), dt.UTC) for end in found["ends"]),
    )
