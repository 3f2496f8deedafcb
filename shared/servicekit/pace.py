"""Say how long a loop should gather work: not at all, until the loop is saturated by its own measure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The share of the time that a saturated loop works. One piece of work for twenty events costs little more than one for a
# single event, so a loop that gathers leaves the processors to the calls that make the events.
SHARE = 0.25
_SATURATED, _RELAXED = 2 * SHARE, 0.8 * SHARE
_WINDOW = 1.0  # seconds; what was longer ago hardly counts
_LONGEST = 0.25


class Pace:
    """The share of the recent time that a loop worked, and what follows from it.

    The share is an average in which each second counts e times as much as the one before. A loop becomes saturated when it
    works for half of the time, and ceases to be so below a fifth: one that gathers works for a quarter.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._moment = now()
        self._taken = 0.0
        self.share = 0.0
        self.is_saturated = False

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time that the block takes as work."""
        began = self._now()
        self.share *= math.exp((self._moment - began) / _WINDOW)
        try:
            yield
        finally:
            self._moment = self._now()
            self._taken = self._moment - began
            self.share = 1 - (1 - self.share) * math.exp(-self._taken / _WINDOW)
            self.is_saturated = self.share > (_RELAXED if self.is_saturated else _SATURATED)

    def gathering_seconds(self) -> float:
        """Return how long to wait before the next piece of work, so that more of it comes together."""
        return min(self._taken * (1 / SHARE - 1), _LONGEST) if self.is_saturated else 0.0
