"""Print the sessions of an exchange in some years as JSON: `python -m lineage_service.exchange_sessions XNYS 2020 2027`."""

from __future__ import annotations

import json
import sys

import exchange_calendars
from exchange_calendars import calendar_utils


def sessions(name: str, first_year: int, last_year: int) -> dict[str, object]:
    """Return the sessions of a calendar and the close of each, for the part of the years that the package knows."""
    factory = calendar_utils.global_calendar_dispatcher._calendar_factories[name]  # noqa: SLF001 - the only way to its bounds
    first, last = f"{first_year}-01-01", f"{last_year}-12-31"
    if (earliest := factory.bound_min()) is not None:
        first = max(first, str(earliest.date()))
    if (latest := factory.bound_max()) is not None:
        last = min(last, str(latest.date()))
    calendar = exchange_calendars.get_calendar(name, start=first, end=last)
    return {
        "timezone": str(calendar.tz),
        "first": first,
        "last": last,
        "days": [str(session.date()) for session in calendar.sessions],
        "ends": [close.timestamp() for close in calendar.closes],
    }


if __name__ == "__main__":
    name, first_year, last_year = sys.argv[1:]
    json.dump(sessions(name, int(first_year), int(last_year)), sys.stdout)
