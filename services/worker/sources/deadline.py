"""End what waits for a source when its time is over; it waits for nothing itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self


class Deadline:
    """The time that one source gets. A blocking call is ended by what the block has registered with `on_expiry`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._interrupt: Callable[[], None] | None = None
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self.is_over = False

    def __enter__(self) -> Self:
        """Start to count."""
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to count."""
        self._timer.cancel()

    @property
    def left(self) -> float:
        """The seconds that are left, at least a little."""
        return max(0.01, self._end - time.monotonic())

    def on_expiry(self, interrupt: Callable[[], None]) -> None:
        """Have a function called when the time is over; it replaces the one before."""
        self._interrupt = interrupt
        if self.is_over:
            interrupt()

    def __str__(self) -> str:
        """Return how long it took, for an error."""
        return f"it took more than {self._seconds:g} s; raise OPTAIC_SOURCE_TOTAL_SECONDS to wait longer"

    def _expire(self) -> None:
        self.is_over = True
        if self._interrupt is not None:
            self._interrupt()
