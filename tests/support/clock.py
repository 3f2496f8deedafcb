"""A clock that stands still until a test moves it, and one that goes."""

import time
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Implements `servicekit.clock.Clock`."""

    def __init__(self, start: datetime = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        """Return the present instant."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)


class MovingClock(FakeClock):
    """Goes like the clock of this machine, also in the processes that get a copy of it."""

    def __init__(self) -> None:
        super().__init__()
        self._made = time.time()

    def now(self) -> datetime:
        """Return the present instant."""
        return super().now() + timedelta(seconds=time.time() - self._made)
