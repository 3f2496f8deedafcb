"""The ports: what lineage-service needs of outside systems, without the names or types of any tool."""

from __future__ import annotations

from typing import Protocol

from lineage_service.domain.calendars import Calendar


class Calendars(Protocol):
    """The business days of exchanges, and of Mondays to Fridays."""

    async def get(self, name: str, first_year: int, last_year: int) -> Calendar:
        """Return a calendar of these years, or of the part of them that is known.

        Raises:
            CalendarError: It cannot be read now.
        """
